//! The goodbye beside a round of hellos of the keeper's.

use super::*;
use crate::codec::{GOODBYE, HELLO};

/// A sending end whose sends take a while, and as long as they are held up. The test reads what was sent.
struct Slow {
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    takes: Duration,
    held: Arc<Mutex<()>>,
    confirms: bool,
}

impl Outbound for Slow {
    fn send(&mut self, _: &[u8], payload: &[u8], _: Duration) -> Result<()> {
        self.sent.lock().push(payload.to_vec());
        drop(self.held.lock());
        thread::pause(self.takes);
        Ok(())
    }

    fn confirms(&self) -> bool {
        self.confirms
    }
}

/// A link whose keeper has begun a round of hellos about so many topics, four or so a message.
fn in_round(topics: usize, takes: Duration, held: &Arc<Mutex<()>>) -> (Link, Arc<Mutex<Vec<Vec<u8>>>>) {
    let outbound = Slow {
        sent: Arc::default(),
        takes,
        held: Arc::clone(held),
        confirms: false,
    };
    begun(topics, outbound)
}

fn begun(topics: usize, outbound: Slow) -> (Link, Arc<Mutex<Vec<Vec<u8>>>>) {
    let sent = Arc::clone(&outbound.sent);
    let options = LinkOptions {
        hello_interval: Duration::from_millis(50),
        max_message_bytes: MIN_HELLO,
        send_timeout: Duration::from_secs(1),
        begins: false,
        hook: None,
    };
    let link = Link::new(Box::new(outbound), Encoder::new(Codec::Json, "p".into(), 1), options).unwrap();
    let mut sender = link.sending.lock();
    for number in 0..topics {
        let topic = Topic::new(format!("{number}{}", "x".repeat(200))).unwrap();
        sender.numbers.slot(&topic, clock::now()).take(1, clock::now());
    }
    drop(sender);
    let deadline = thread::deadline(Duration::from_secs(20));
    while sent.lock().is_empty() {
        assert!(Instant::now() < deadline, "no hello is sent");
        std::thread::yield_now();
    }
    (link, sent)
}

/// Otherwise each subscriber would take it for a loss.
#[test]
fn a_goodbye_is_a_whole_round_of_its_own() {
    let held = Arc::<Mutex<()>>::default();
    let hold = held.lock();
    let (link, sent) = in_round(40, Duration::from_millis(2), &held);
    std::thread::scope(|scope| {
        scope.spawn(|| link.say_goodbye());
        let deadline = thread::deadline(Duration::from_secs(20));
        while !link.sending.waiting.load(Ordering::Relaxed) {
            assert!(Instant::now() < deadline, "no goodbye is said");
            std::thread::yield_now();
        }
        drop(hold);
    });
    drop(link);
    let (mut decoder, mut messages) = (Decoder::new(), Vec::new());
    let mut sent: Vec<_> = sent
        .lock()
        .iter()
        .map(|payload| {
            decoder.decode(&Topic::hello(), payload, &mut messages).unwrap();
            let Some(Message::Control(Control { action, value, .. })) = messages.pop() else {
                panic!("no hello");
            };
            let hello = Hello::parse(value.as_deref()).unwrap();
            (hello.round.unwrap(), hello.part, hello.more, action)
        })
        .collect();
    let (round, last, more, action) = sent.pop().unwrap();
    assert!(!more && last > 5 && action == GOODBYE, "{round}, {last}, {action}");
    for part in (0..last).rev() {
        assert_eq!(sent.pop().unwrap(), (round, part, true, HELLO.into()));
    }
    assert!(sent.len() < last as usize, "the keeper's round is broken off");
    assert!(sent.iter().all(|(earlier, ..)| *earlier < round), "{round}");
}

/// However many topics there are, and whether or not there is a goodbye.
#[test]
fn a_round_of_hellos_holds_up_no_end() {
    for says_goodbye in [true, false] {
        let (link, sent) = in_round(600, Duration::from_millis(30), &Arc::default());
        let before = sent.lock().len();
        if says_goodbye {
            link.say_goodbye();
        }
        drop(link);
        // All would be more than 100, and take more than 3 seconds.
        let count = sent.lock().len() - before;
        assert!(count < 40, "{count}");
    }
}

/// As where each message is confirmed, and a server does not answer.
#[test]
fn a_send_of_the_keeper_holds_up_no_end() {
    let held = Arc::<Mutex<()>>::default();
    let hold = held.lock();
    let outbound = Slow {
        sent: Arc::default(),
        takes: Duration::ZERO,
        held: Arc::clone(&held),
        confirms: true,
    };
    let (link, _) = begun(1, outbound);
    let has_ended = std::thread::scope(|scope| {
        let ending = scope.spawn(move || {
            link.say_goodbye();
            drop(link);
        });
        let deadline = thread::deadline(Duration::from_secs(20));
        while !ending.is_finished() && Instant::now() < deadline {
            thread::pause(Duration::from_millis(1));
        }
        let has_ended = ending.is_finished();
        drop(hold);
        has_ended
    });
    assert!(has_ended);
}
