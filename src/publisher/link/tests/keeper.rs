//! What the keeper does beside its hellos.

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

type Asked = Result<Topic>;

/// A sending end that loses the signal of a question which comes while it sends, as libzmq does.
struct Deaf {
    ask: crossbeam_channel::Sender<Asked>,
    asked: Receiver<Asked>,
    /// The next send on the first topic has the second one asked.
    next: Arc<Mutex<Option<(Topic, Topic)>>>,
    sent: crossbeam_channel::Sender<String>,
}

impl Outbound for Deaf {
    fn send(&mut self, topic: &[u8], _: &[u8], _: Duration) -> Result<()> {
        let topic = String::from_utf8(topic.to_vec()).unwrap();
        let next = self.next.lock().take_if(|(on, _)| on.as_str() == topic);
        if let Some((_, probe)) = next {
            self.ask.send(Ok(probe)).unwrap();
        }
        // The test may have read enough.
        let _ = self.sent.send(topic);
        Ok(())
    }

    fn takes_joined(&self) -> bool {
        true
    }

    fn probes(&mut self) -> Result<Vec<Topic>> {
        self.asked.try_iter().collect()
    }

    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        Ok(Some(parked()))
    }
}

struct Rig {
    link: Link,
    ask: crossbeam_channel::Sender<Asked>,
    next: Arc<Mutex<Option<(Topic, Topic)>>>,
    sent: Receiver<String>,
}

fn rig(hello_interval: Duration, hook: Option<ErrorHook>) -> Rig {
    let ((ask, asked), (sender, sent)) = (crossbeam_channel::unbounded(), crossbeam_channel::unbounded());
    let outbound = Deaf {
        ask: ask.clone(),
        asked,
        next: Arc::default(),
        sent: sender,
    };
    let next = Arc::clone(&outbound.next);
    let options = LinkOptions {
        hello_interval,
        max_message_bytes: 1 << 20,
        send_timeout: Duration::from_secs(1),
        begins: false,
        hook,
    };
    let link = Link::new(Box::new(outbound), Encoder::new(Codec::Json, "p".into(), 1), options).unwrap();
    Rig { link, ask, next, sent }
}

impl Rig {
    /// Has this asked, with a signal.
    fn ask(&self, asked: Asked) {
        self.ask.send(asked).unwrap();
        self.link.sending.wake.wake();
    }

    /// Waits until something was sent on this topic.
    fn wait(&self, topic: &Topic) {
        while self.sent.recv_timeout(LIMIT).unwrap() != topic.as_str() {}
    }
}

const NEVER: Duration = Duration::from_secs(600);

#[test]
fn a_question_that_comes_during_an_answer_is_answered() {
    let rig = rig(NEVER, None);
    let (first, second) = (Topic::probe(1, 1), Topic::probe(2, 2));
    *rig.next.lock() = Some((first.clone(), second.clone()));
    rig.ask(Ok(first.clone()));
    rig.wait(&first);
    rig.wait(&second);
}

#[test]
fn a_question_that_comes_with_the_rest_of_a_burst_is_answered() {
    let (rig, probe) = (rig(NEVER, None), Topic::probe(1, 1));
    for _ in 0..5 {
        // The keeper waits for the next burst by then.
        thread::pause(Duration::from_millis(30));
        *rig.next.lock() = Some((Topic::new("49").unwrap(), probe.clone()));
        let mut sender = rig.link.sending.lock();
        gather(&mut sender);
        rig.link.sending.gathers(clock::now());
        drop(sender);
        rig.wait(&probe);
    }
}

#[test]
fn a_question_that_comes_during_a_hello_is_answered_before_the_next() {
    let interval = Duration::from_secs(2);
    let (rig, probe) = (rig(interval, None), Topic::probe(1, 1));
    *rig.next.lock() = Some((Topic::hello(), probe.clone()));
    rig.wait(&Topic::hello());
    let start = Instant::now();
    rig.wait(&probe);
    assert!(start.elapsed() < interval / 2);
}

/// The hook is the program's, and may take any time.
#[test]
fn no_update_waits_for_a_hook() {
    let (entered, enters) = crossbeam_channel::unbounded();
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let hook = move |_: &Error| {
        entered.send(()).unwrap();
        let _ = released.recv_timeout(LIMIT);
    };
    let rig = rig(NEVER, Some(Arc::new(hook)));
    gather(&mut rig.link.sending.lock());
    rig.ask(Err(Error::new(ErrorKind::TooLarge, "a connection was closed")));
    enters.recv_timeout(LIMIT).unwrap();
    assert!(rig.link.sending.lock().burst.since().is_none(), "sent before");
    let topic = Topic::new("a").unwrap();
    assert_eq!(burst(&rig.link, &topic, 20_000), None, "sent by the callers");
    release.send(()).unwrap();
    burst(&rig.link, &topic, 1_000_000).unwrap();
}
