use super::*;
use crate::codec::{Codec, Joined};
use crate::config::Config;
use crate::drivers::Drivers;

/// The answer to a question proves that everything sent before it has come.
#[test]
fn an_answer_comes_behind_what_was_sent_before() {
    let driver = MemoryDriver::new("memory://x").unwrap().capacity(2);
    let (mut inbound, _wake) = driver.inbound().unwrap();
    let mut outbound = driver.outbound().unwrap();
    let topic = Topic::new("a").unwrap();
    inbound.connect("memory://x").unwrap();
    inbound.subscribe(&topic).unwrap();
    outbound.send(b"a", b"1", Duration::ZERO).unwrap();
    inbound.probe("memory://x", &topic).unwrap();
    outbound.send(b"a", b"2", Duration::ZERO).unwrap();
    assert!(
        outbound.send(b"a", b"3", Duration::ZERO).is_err(),
        "an answer takes no room"
    );
    let mut came = Vec::new();
    loop {
        match inbound.recv(Some(Duration::ZERO)).unwrap() {
            Received::Frame { payload, .. } => came.push(payload[0]),
            Received::Answer { .. } => came.push(b'!'),
            Received::Idle => break,
            _ => {}
        }
    }
    assert_eq!(came, *b"1!2");
}

/// Its answer says that from then on everything comes.
#[test]
fn an_end_that_is_made_while_a_sender_waits_gets_the_frame() {
    const LIMIT: Duration = Duration::from_secs(20);
    let driver = MemoryDriver::new("memory://x").unwrap().capacity(1);
    let topic = Topic::new("a").unwrap();
    let open = || {
        let (mut inbound, _wake) = driver.inbound().unwrap();
        inbound.connect("memory://x").unwrap();
        inbound.subscribe(&topic).unwrap();
        inbound
    };
    let frames = |inbound: &mut dyn Inbound, count| {
        let end = deadline(LIMIT);
        let mut came = Vec::new();
        while came.len() < count && std::time::Instant::now() < end {
            if let Received::Frame { payload, .. } = inbound.recv(Some(Duration::from_millis(10))).unwrap() {
                came.extend_from_slice(payload);
            }
        }
        came
    };
    let mut slow = open();
    let mut outbound = driver.outbound().unwrap();
    outbound.send(b"a", b"1", LIMIT).unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| outbound.send(b"a", b"2", LIMIT).unwrap());
        // For it to wait; if it is late, it has nothing to go past.
        crate::thread::pause(Duration::from_millis(50));
        let mut late = open();
        assert_eq!(frames(&mut *slow, 2), *b"12");
        sender.join().unwrap();
        assert_eq!(frames(&mut *late, 1), *b"2");
    });
}

#[test]
fn updates_are_joined_as_the_option_says() {
    for (join_frames, expected) in [(JoinFrames::Never, 3), (JoinFrames::Auto, 1), (JoinFrames::Always, 1)] {
        let config = Config {
            pub_sub_driver: "memory".into(),
            publisher_bind_address: "joins".into(),
            join_frames,
            ..Config::default()
        };
        let driver = Drivers::new().network(&config).unwrap();
        let (mut inbound, _wake) = driver.inbound().unwrap();
        let mut outbound = driver.outbound().unwrap();
        inbound.connect(&outbound.address().unwrap()).unwrap();
        inbound.subscribe(&Topic::new("a").unwrap()).unwrap();
        let mut joined = Joined::new(Codec::Json);
        (0..3).for_each(|_| joined.push(|bytes| bytes.extend(b"{}")));
        outbound.send_joined(b"a", joined.payload(), Duration::ZERO).unwrap();
        let mut frames = 0;
        while !matches!(inbound.recv(Some(Duration::ZERO)).unwrap(), Received::Idle) {
            frames += 1;
        }
        // One is the event of the connection.
        assert_eq!((frames - 1, outbound.takes_joined()), (expected, expected == 1));
    }
}
