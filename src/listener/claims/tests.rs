use super::*;
use crate::stores::memory::MemoryStore;

struct Table {
    claims: Claims,
    store: Arc<dyn Store>,
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

impl Table {
    fn new(registered: &[&str]) -> Table {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for name in registered {
            let member = format!(r#"{{"epoch":1,"address":"{name}"}}"#);
            store.create(LISTENERS, name, &member, &Topic::ALL).unwrap();
        }
        let claims = Claims::new(Arc::clone(&store));
        Table { claims, store }
    }

    fn claim(&self, event: &str, run: &str) -> Claim {
        let claims = vec![event.into()];
        let step = Step {
            claims,
            ..Step::default()
        };
        let outcome = self.claims.take(&step, &topic(run)).unwrap();
        outcome.claims.into_iter().next().unwrap().unwrap()
    }

    fn mark(&self, event: &str, run: &str, version: u64) -> Claim {
        let marks = vec![(event.into(), topic(run), version)];
        let step = Step {
            marks,
            ..Step::default()
        };
        let outcome = self.claims.take(&step, &topic(run)).unwrap();
        outcome.marks.into_iter().next().unwrap().unwrap()
    }
}

fn version(claim: Claim) -> u64 {
    match claim {
        Claim::Ours(version) | Claim::TakenOver(version) => version,
        claim => panic!("{claim:?}"),
    }
}

#[test]
fn an_event_has_one_owner_until_that_is_gone() {
    let table = Table::new(&["a", "b"]);
    assert!(matches!(table.claim("e", "a"), Claim::Ours(_)));
    assert_eq!(table.claim("e", "b"), Claim::Theirs(topic("a")));
    let of_a = version(table.claim("e", "a"));
    table.store.delete(LISTENERS, "a").unwrap();
    let of_b = table.claim("e", "b");
    assert!(matches!(of_b, Claim::TakenOver(_)));
    assert_eq!(table.claim("e", "a"), Claim::Theirs(topic("b")));
    // The first one's mark comes too late.
    assert_eq!(table.mark("e", "a", of_a), Claim::Theirs(topic("b")));
    assert_eq!(table.mark("e", "b", version(of_b)), Claim::Done(topic("b")));
}

#[test]
fn what_is_done_stays_done_whoever_asks() {
    let table = Table::new(&["a", "b"]);
    let of_a = version(table.claim("e", "a"));
    assert_eq!(table.mark("e", "a", of_a), Claim::Done(topic("a")));
    assert_eq!(table.claim("e", "b"), Claim::Done(topic("a")));
    table.store.delete(LISTENERS, "a").unwrap();
    assert_eq!(table.claim("e", "b"), Claim::Done(topic("a")));
    assert_eq!(table.claim("e", "a"), Claim::Done(topic("a")));
    // Marked again, since the first answer was lost.
    assert_eq!(table.mark("e", "a", of_a), Claim::Done(topic("a")));
    // The store has lost the claim, but it is done.
    table.store.delete(CLAIMS, "e").unwrap();
    assert_eq!(table.mark("e", "a", of_a), Claim::Done(topic("a")));
    assert_eq!(table.claim("e", "b"), Claim::Done(topic("a")));
}

#[test]
fn a_step_does_all_at_once() {
    let table = Table::new(&["a"]);
    let versions = ["1", "2", "3"].map(|event| version(table.claim(event, "a")));
    table.store.create(CLAIMS, "malformed", "?", &Topic::ALL).unwrap();
    let before = table.store.table_version(CLAIMS).unwrap().unwrap().version;
    let step = Step {
        marks: vec![("1".into(), topic("a"), versions[0])],
        claims: vec!["4".into(), "malformed".into(), "5".into()],
        releases: vec![("2".into(), versions[1]), ("2".into(), 1)],
        removals: vec!["3".into(), "missing".into()],
    };
    let outcome = table.claims.take(&step, &topic("a")).unwrap();
    assert_eq!(outcome.marks.len(), 1);
    let kinds: Vec<_> = outcome
        .claims
        .iter()
        .map(|claim| claim.as_ref().map_err(Error::kind))
        .collect();
    assert!(matches!(
        kinds[..],
        [Ok(Claim::Ours(_)), Err(ErrorKind::Malformed), Ok(Claim::Ours(_))]
    ));
    let left: Vec<_> = table.store.keys(CLAIMS, None).map(Result::unwrap).collect();
    assert_eq!(left, ["1", "4", "5", "malformed"]);
    assert_eq!(table.store.table_version(CLAIMS).unwrap().unwrap().version, before + 5);
}

#[test]
fn a_claim_that_was_spoilt_meanwhile_is_marked_all_the_same() {
    let table = Table::new(&["a"]);
    let of_a = version(table.claim("e", "a"));
    table.store.set(CLAIMS, "e", "nonsense").unwrap();
    assert_eq!(table.mark("e", "a", of_a), Claim::Done(topic("a")));
    assert_eq!(table.claim("e", "a"), Claim::Done(topic("a")));
}
