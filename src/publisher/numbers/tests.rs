use super::*;
use crate::clock;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// An update written by a slow store counts as sent when sending returned, not when it began: otherwise a loss in
/// between would count as known to a program that read the store in between.
#[test]
fn an_update_was_sent_when_sending_ended() {
    let mut numbers = Numbers::default();
    let (a, begun) = (topic("a"), clock::now());
    let ended = begun + Duration::from_millis(60);
    numbers.slot(&a, begun).settle(1, ended, Ok(())).unwrap();
    let (hello, _) = numbers.hello(Part::default(), 256, Duration::from_secs(1), ended);
    assert_eq!(hello.topics, [("a".to_owned(), 1, 0)]);
    assert_eq!(numbers.slot(&a, ended).idle, Duration::ZERO);
}

/// The place of the last topic is remembered; another one, or a question about a new one, does not disturb it.
#[test]
fn topics_by_turns_have_numbers_of_their_own() {
    let mut numbers = Numbers::default();
    let (a, b, now) = (topic("a"), topic("b"), clock::now());
    for expected in 1..=3 {
        for topic in [&a, &a, &b] {
            assert_eq!(numbers.frame(&self::topic("new")), 0);
            let mut slot = numbers.slot(topic, now);
            *slot.frame() = slot.seq;
            slot.take(1, now);
        }
        assert_eq!((numbers.frame(&a), numbers.frame(&b)), (2 * expected, expected));
    }
    let (hello, _) = numbers.hello(Part::default(), 256, Duration::from_secs(1), now);
    assert_eq!(hello.topics, [("a".to_owned(), 6, 0), ("b".to_owned(), 3, 0)]);
}

/// An event that could not be published still has a number, which hellos name with the time of the event.
#[test]
fn a_number_that_is_skipped_is_told_of() {
    let mut numbers = Numbers::default();
    let (a, b) = (topic("a"), topic("b"));
    numbers.slot(&a, clock::now()).settle(1, clock::now(), Ok(())).unwrap();
    let at = clock::now() + Duration::from_secs(1);
    numbers.skip(&a, at);
    numbers.skip(&a, at);
    numbers.skip(&b, at);
    let (hello, _) = numbers.hello(
        Part::default(),
        256,
        Duration::from_secs(1),
        at + Duration::from_secs(2),
    );
    assert_eq!(hello.topics, [("a".to_owned(), 3, 2000), ("b".to_owned(), 1, 2000)]);
    assert_eq!(numbers.slot(&a, at).seq, 4);
}

/// A hello might arrive after the update whose number is set aside, and name the one before.
#[test]
fn a_topic_whose_number_is_set_aside_is_told_of_later() {
    let (mut numbers, now) = (Numbers::default(), clock::now());
    let (a, b) = (topic("a"), topic("b"));
    for topic in [&a, &b] {
        numbers.slot(topic, now).settle(1, now, Ok(())).unwrap();
    }
    let told = |numbers: &mut Numbers| {
        let (hello, next) = numbers.hello(Part::default(), 256, Duration::from_secs(1), now);
        assert!(next.is_none());
        numbers.told();
        hello
            .topics
            .into_iter()
            .map(|(name, number, _)| (name, number))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers.open(&a, 0, now).seq, 2);
    for _ in 0..=TOLD {
        assert_eq!(told(&mut numbers), [("b".to_owned(), 1)]);
    }
    numbers.close(&a, None);
    assert_eq!(told(&mut numbers), [("a".to_owned(), 1)]);
    assert_eq!(numbers.open(&a, 0, now).seq, 2);
    numbers.close(&a, Some(now));
    assert_eq!(told(&mut numbers), [("a".to_owned(), 2)]);
}

/// Every recent topic is named in six rounds, one to spare, in parts within the limit, whatever its name.
#[test]
fn rounds_tell_of_every_recent_topic_often_enough() {
    let mut numbers = Numbers::default();
    for number in 0..600 {
        let topic = topic(&number.to_string());
        numbers
            .slot(&topic, clock::now())
            .settle(1, clock::now(), Ok(()))
            .unwrap();
    }
    let mut told = HashMap::new();
    for round in 1..=7 {
        let (mut part, mut parts) = (Some(Part::default()), 0);
        while let Some(this) = part {
            let (hello, next) = numbers.hello(this, 256, Duration::from_secs(1), clock::now());
            assert_eq!(
                (hello.round, hello.part, hello.more),
                (Some(round), parts, next.is_some())
            );
            assert!(hello.topics.len() <= 256);
            for (name, ..) in hello.topics {
                *told.entry(name).or_insert(0) += 1;
            }
            (part, parts) = (next, parts + 1);
        }
        numbers.told();
    }
    assert_eq!(told.len(), 600);
    assert!(told.values().all(|times| *times == TOLD + 1));
}
