//! The order of answers and hellos, and the numbers of rounds.

mod goodbye;
mod keeper;
mod times;

use crossbeam_channel::Receiver;

use parking_lot::MutexGuard;

use super::*;
use crate::codec::{Codec, Control, Decoder, Hello, Message};
use crate::drivers::memory::MemoryDriver;
use crate::transport::{Driver, Inbound, Received, WaiterAndWake};
use crate::update::{Action, DbUpdate};

const ADDRESS: &str = "memory://here";

/// The memory driver's sending end; the test sends its probes and makes it fail.
struct Troubled {
    inner: Box<dyn Outbound>,
    probes: Receiver<Topic>,
    /// Number of sends that succeed before one fails.
    fails_after: Arc<Mutex<Option<usize>>>,
}

impl Outbound for Troubled {
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        let mut fails_after = self.fails_after.lock();
        if let Some(left) = fails_after.take() {
            *fails_after = Some(
                left.checked_sub(1)
                    .ok_or_else(|| Error::new(ErrorKind::Timeout, "no room"))?,
            );
        }
        self.inner.send(topic, payload, timeout)
    }

    fn takes_joined(&self) -> bool {
        true
    }

    fn probes(&mut self) -> Result<Vec<Topic>> {
        Ok(self.probes.try_iter().collect())
    }

    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        Ok(Some(parked()))
    }
}

struct Rig {
    link: Link,
    ask: crossbeam_channel::Sender<Topic>,
    fails_after: Arc<Mutex<Option<usize>>>,
    inbound: Box<dyn Inbound>,
}

/// A link with a hello interval of 50 ms, and a receiving end with these topics.
fn rig(max_message_bytes: usize, topics: &[&Topic]) -> Rig {
    let driver = MemoryDriver::new(ADDRESS).unwrap();
    let (mut inbound, _) = driver.inbound().unwrap();
    inbound.connect(ADDRESS).unwrap();
    for topic in topics {
        inbound.subscribe(topic).unwrap();
    }
    let (ask, probes) = crossbeam_channel::unbounded();
    let outbound = Troubled {
        inner: driver.outbound().unwrap(),
        probes,
        fails_after: Arc::default(),
    };
    let fails_after = Arc::clone(&outbound.fails_after);
    let encoder = Encoder::new(Codec::Json, "p".into(), 1);
    let interval = Duration::from_millis(50);
    let options = LinkOptions {
        hello_interval: interval,
        max_message_bytes,
        send_timeout: Duration::from_secs(1),
        begins: false,
        hook: None,
    };
    let link = Link::new(Box::new(outbound), encoder, options).unwrap();
    Rig {
        link,
        ask,
        fails_after,
        inbound,
    }
}

impl Rig {
    /// The topic and the payload of the next frame.
    fn next(&mut self) -> (String, Vec<u8>) {
        let deadline = thread::deadline(Duration::from_secs(20));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbound.recv(Some(left)).unwrap() {
                Received::Frame { topic, payload, .. } => {
                    return (String::from_utf8(topic.to_vec()).unwrap(), payload.to_vec());
                }
                Received::Idle => panic!("nothing comes"),
                _ => {}
            }
        }
    }
}

/// A hello that overtakes a question says that the question was not received.
#[test]
fn a_question_is_answered_before_the_next_hello() {
    let (hello, probe) = (Topic::hello(), Topic::probe(1, 1));
    let mut rig = rig(1 << 20, &[&hello, &probe]);
    rig.next();
    let sending = Arc::clone(&rig.link.sending);
    // A burst holds the lock until a hello is due, and the keeper waits for it.
    let sender = sending.sender.lock();
    let deadline = thread::deadline(Duration::from_secs(20));
    while !sending.waiting.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "no hello is due");
        std::thread::yield_now();
    }
    while rig
        .inbound
        .recv(Some(Duration::ZERO))
        .is_ok_and(|received| !matches!(received, Received::Idle))
    {}
    rig.ask.send(probe.clone()).unwrap();
    MutexGuard::unlock_fair(sender);
    assert_eq!(rig.next().0, probe.as_str());
    assert_eq!(rig.next().0, hello.as_str());
}

/// An unfinished round is not repeated: parts of both would be taken for one whole round.
#[test]
fn no_two_rounds_of_hellos_have_the_same_number() {
    let mut rig = rig(MIN_HELLO, &[&Topic::hello()]);
    let name = |number: usize| Topic::new(format!("{number}{}", "x".repeat(200))).unwrap();
    {
        let mut sender = rig.link.sending.sender.lock();
        for number in 0..20 {
            sender.numbers.slot(&name(number), clock::now()).take(1, clock::now());
        }
        *rig.fails_after.lock() = Some(1);
    }
    let (mut decoder, mut messages) = (Decoder::new(), Vec::new());
    let (mut last, mut is_whole) = ((0, 0), false);
    while !is_whole {
        let (_, payload) = rig.next();
        decoder.decode(&Topic::hello(), &payload, &mut messages).unwrap();
        let Some(Message::Control(Control { value, .. })) = messages.pop() else {
            panic!("no hello");
        };
        let hello = Hello::parse(value.as_deref()).unwrap();
        let this = (hello.round.unwrap(), hello.part);
        assert!(last < this, "{last:?}, {this:?}");
        is_whole = !hello.more && hello.part > 0;
        last = this;
    }
    assert_eq!(*rig.fails_after.lock(), None, "it failed");
}

impl Rig {
    /// Sends updates until some are gathered. Returns the number sent.
    fn burst(&self, topic: &Topic) -> u64 {
        burst(&self.link, topic, 1_000_000).expect("it is never a burst")
    }
}

/// Sends up to this many updates as fast as possible, until some are gathered. Returns the number sent then.
fn burst(link: &Link, topic: &Topic, most: u64) -> Option<u64> {
    let update = DbUpdate::new("t", "k", Action::Set);
    let (mut body, encoder) = (Vec::new(), &link.sending.encoder);
    encoder.begin(&update, topic, &mut body);
    for count in 1..=most {
        // The keeper may hold the lock for a moment.
        let mut turn = link.turn(Duration::from_secs(20)).unwrap();
        if turn.gathers(topic, &update, body.len()).unwrap() {
            turn.gather(topic, &update, encoder, &body);
            return Some(count);
        }
        let (slot, outbound, left) = turn.slot(topic);
        let mut payload = body.clone();
        encoder.finish(0, 0, slot.seq, slot.idle, &mut payload);
        let sent = outbound.send(topic.as_str().as_bytes(), &payload, left);
        let now = clock::now();
        slot.settle(1, now, sent).unwrap();
        turn.end(now);
    }
    None
}

/// The next number of a topic; `last` is the last one received.
fn told(rig: &mut Rig, topic: &Topic, last: &mut u64) -> u64 {
    let (mut decoder, mut messages) = (Decoder::new(), Vec::new());
    loop {
        let (name, payload) = rig.next();
        decoder.decode(topic, &payload, &mut messages).unwrap();
        for message in messages.drain(..) {
            match message {
                Message::Update(update) if name == topic.as_str() => *last = update.origin.unwrap().seq,
                Message::Control(control) => {
                    let hello = Hello::parse(control.value.as_deref()).unwrap();
                    if let Some((_, number, _)) = hello.topics.iter().find(|(name, ..)| name == topic.as_str()) {
                        return *number;
                    }
                }
                Message::Update(_) => {}
            }
        }
    }
}

/// A gathered update goes out soon without further sends, and before a hello names it.
#[test]
fn what_is_gathered_is_sent_before_it_is_told_of() {
    let topic = Topic::new("a").unwrap();
    let mut rig = rig(1 << 20, &[&topic, &Topic::hello()]);
    let (mut last, mut came) = (0, 0);
    for _ in 0..5 {
        last += rig.burst(&topic);
        loop {
            let number = told(&mut rig, &topic, &mut came);
            assert!(number <= came, "{number} is told of, {came} has come");
            if number == last {
                break;
            }
        }
    }
}

/// An accepted update that cannot be sent is counted and reported, and its number is used up.
#[test]
fn what_was_accepted_and_cannot_be_sent_is_a_gap() {
    let topic = Topic::new("a").unwrap();
    let mut rig = rig(1 << 20, &[&topic, &Topic::hello()]);
    let sending = Arc::clone(&rig.link.sending);
    let accepted = rig.burst(&topic);
    // The keeper, or the next send, may have sent it already.
    let mut sender = sending.lock();
    let is_waiting = sender.burst.since().is_some();
    *rig.fails_after.lock() = Some(0);
    let flushed = sender.flush(Duration::ZERO, false);
    assert_eq!(flushed.is_err(), is_waiting, "it stays while it may be sent");
    *rig.fails_after.lock() = is_waiting.then_some(0);
    sender.flush(Duration::ZERO, true).unwrap();
    *rig.fails_after.lock() = None;
    assert_eq!(sender.trouble().is_some(), is_waiting);
    assert!(sender.burst.since().is_none());
    drop(sender);
    assert_eq!(rig.link.lost(), u64::from(is_waiting));
    let mut last = 0;
    while told(&mut rig, &topic, &mut last) < accepted {}
    assert_eq!(last, accepted - rig.link.lost());
}

/// Writers whose sends take a while get a number each, one after the other, and none is left waiting.
#[test]
fn writers_of_one_topic_take_turns() {
    let topic = Topic::new("a").unwrap();
    let rig = rig(1 << 20, &[]);
    let (link, numbers) = (&rig.link, Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let turn = link.turn_on(&topic, Duration::from_secs(20)).unwrap();
                    let open = turn.open(&topic, 0);
                    numbers.lock().push(open.number.seq);
                    std::thread::yield_now();
                    open.settle(true);
                }
            });
        }
    });
    assert_eq!(numbers.into_inner(), (1..=1600).collect::<Vec<_>>());
}

/// A sending end without subscribers' questions. The test counts the sends, all of which fail after a while.
struct Failing(ErrorKind, Arc<Mutex<usize>>);

impl Outbound for Failing {
    fn send(&mut self, _: &[u8], _: &[u8], _: Duration) -> Result<()> {
        *self.1.lock() += 1;
        thread::pause(Duration::from_millis(100));
        Err(Error::new(self.0, "it does not work"))
    }

    fn takes_joined(&self) -> bool {
        true
    }
}

/// A link to it that sends nothing by itself.
fn failing(kind: ErrorKind) -> (Link, Arc<Mutex<usize>>) {
    let sent = Arc::default();
    let encoder = Encoder::new(Codec::Json, "p".into(), 1);
    let options = LinkOptions {
        hello_interval: Duration::from_secs(600),
        max_message_bytes: 1 << 20,
        send_timeout: Duration::from_secs(1),
        begins: false,
        hook: None,
    };
    let link = Link::new(Box::new(Failing(kind, Arc::clone(&sent))), encoder, options).unwrap();
    (link, sent)
}

/// Of the update that was to follow the first hello it is known that it was not sent.
#[test]
fn a_first_hello_in_doubt_leaves_no_doubt_about_the_update() {
    let (link, _) = failing(ErrorKind::Unconfirmed);
    let error = link.turn(Duration::from_secs(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

/// Gathers an update on each of 50 topics, unknown to the keeper.
fn gather(sender: &mut Sender) {
    let now = clock::now();
    for number in 0..50 {
        let topic = Topic::new(number.to_string()).unwrap();
        let update = DbUpdate::new("t", "k", Action::Set);
        let Sender { numbers, burst, .. } = &mut *sender;
        let mut slot = numbers.slot(&topic, now);
        burst.push((&topic, &update), &mut slot, now, |bytes| bytes.push(b'x'));
        slot.take(1, now);
    }
}

/// A caller with hardly any time left, as one that undoes a write, is refused alone.
#[test]
fn a_caller_without_time_gives_up_nothing_that_others_have_sent() {
    let (link, _) = failing(ErrorKind::Timeout);
    let mut sender = link.sending.lock();
    sender.introduced = true;
    gather(&mut sender);
    drop(sender);
    let (topic, update) = (Topic::new("a").unwrap(), DbUpdate::new("t", "k", Action::Set));
    for left in [Duration::ZERO, Duration::from_millis(1)] {
        let refused = link.turn(left).unwrap().gathers(&topic, &update, 10).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Timeout, "{refused}");
        assert_eq!(link.turn(left).unwrap().flush().unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert_eq!(link.lost(), 0);
    // One that has waited as long as a send may take.
    let gathers = link
        .turn(link.sending.send_timeout)
        .unwrap()
        .gathers(&topic, &update, 10);
    assert!(!gathers.unwrap());
    assert_eq!(link.lost(), 50);
}

/// A transport that takes nothing is not tried again for each topic.
#[test]
fn what_is_given_up_takes_a_moment() {
    let (link, sent) = failing(ErrorKind::Timeout);
    let mut sender = link.sending.lock();
    gather(&mut sender);
    *sent.lock() = 0;
    sender.flush(Duration::ZERO, true).unwrap();
    assert!(*sent.lock() <= 2);
    assert_eq!(sender.gathered.lost(), 50);
    let trouble = sender.trouble().unwrap();
    assert!(trouble.to_string().contains("it does not work"));
    assert_eq!(trouble.lost(), Some(sender.gathered.lost()));
}
