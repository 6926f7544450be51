//! A time limit for a send of any length.

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A link whose sends have all the time, and what is sent on this topic.
fn rig(topic: &Topic) -> (Link, Box<dyn Inbound>) {
    let driver = MemoryDriver::new(ADDRESS).unwrap();
    let (mut inbound, _) = driver.inbound().unwrap();
    inbound.connect(ADDRESS).unwrap();
    inbound.subscribe(topic).unwrap();
    let options = LinkOptions {
        hello_interval: Duration::from_secs(600),
        max_message_bytes: 1 << 20,
        send_timeout: Duration::MAX,
        begins: false,
        hook: None,
    };
    let encoder = Encoder::new(Codec::Json, "p".into(), 1);
    (
        Link::new(driver.outbound().unwrap(), encoder, options).unwrap(),
        inbound,
    )
}

#[test]
fn the_keeper_sends_a_burst_that_has_all_the_time() {
    let topic = Topic::new("49").unwrap();
    let (link, mut inbound) = rig(&topic);
    gather(&mut link.sending.lock());
    // A caller with less time, who may not give it up.
    assert!(link.turn(LIMIT).unwrap().flush().unwrap());
    gather(&mut link.sending.lock());
    link.sending.gathers(clock::now());
    let (mut came, end) = (0, Instant::now() + LIMIT);
    while came < 2 {
        assert!(Instant::now() < end, "{came} came");
        let received = inbound.recv(Some(Duration::from_millis(10))).unwrap();
        came += usize::from(matches!(received, Received::Frame { .. }));
    }
}

#[test]
fn a_writer_with_all_the_time_waits_for_another_one() {
    let topic = Topic::new("a").unwrap();
    let (link, _inbound) = rig(&topic);
    let open = link.turn(LIMIT).unwrap().open(&topic, 0);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| link.turn_on(&topic, Duration::MAX).unwrap().slot(&topic).0.seq);
        let end = Instant::now() + LIMIT;
        // That of the topic, ours, and that of the one who waits.
        while !waits.is_finished() && Arc::strong_count(&link.sending.lock().numbers.closed(&topic).unwrap()) < 3 {
            assert!(Instant::now() < end, "nobody waits");
        }
        open.settle(true);
        assert_eq!(waits.join().unwrap(), 2);
    });
}
