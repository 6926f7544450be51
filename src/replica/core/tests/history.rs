//! What is of another history than the store's is not kept.

use super::*;

/// While changes are read of a table to which nothing was written before, the table begins anew: what they include is
/// not what updates have brought meanwhile.
#[test]
fn changes_of_another_history_than_the_updates_are_not_trusted() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let nothing = Base::of_table(TableVersion::default());
    let mut core = synced(&topic, Some(nothing), &[], now);
    core.handle_update(&update(&topic, 2), Some(&row(&topic, 2)), now);
    let later = now + 2 * TIMES.patience;
    let Some(Read::Changes { id, .. }) = core.poll(later) else {
        panic!("no catch-up");
    };
    core.handle_update(&update(&topic, 1), Some(&row(&topic, 1)), later);
    let proven = core.proven(&topic);
    let other = NewRow::new("k".into(), Arc::new(topic.clone()), 2, Ok(()), 1);
    assert!(core.take_changed(id, &topic, &"k".into(), 2, Some(&other)).is_none());
    core.end_changes(id, &topic, base(3).version, later);
    assert_eq!(
        (core.topics[&topic].due().unwrap().1, core.proven(&topic)),
        (Want::List, proven)
    );
    // The listing finds the other row.
    let Some(Read::Listing { id, .. }) = core.poll(later) else {
        panic!("no listing");
    };
    core.begin_listing(id, &topic, Some(base(3)), ["k".into()], later);
    core.take_listed(id, &topic, &other);
    core.end_listing(id, &topic);
    core.end_sweep(id, &topic, later);
    assert_eq!(core.counts.went_back, 1);
}

/// A late update from before the store went back: the replica has seen nothing of that history, and the store's versions
/// come to pass the update's. The catch-up does not show it.
#[test]
fn a_state_that_the_store_does_not_show_is_not_kept() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    for is_delete in [false, true] {
        let mut core = synced(&topic, Some(base(5)), &[row(&topic, 5)], now);
        let mut late = update(&topic, 8);
        if is_delete {
            late.action = Action::Delete;
        }
        let step = core.handle_update(&late, Some(&row(&topic, 8)).filter(|_| !is_delete), now);
        assert!(step.0.is_some());
        let due = now + 2 * TIMES.patience;
        let Some(Read::Changes { id, .. }) = core.poll(due) else {
            panic!("no catch-up");
        };
        let proven = core.proven(&topic);
        core.end_changes(id, &topic, base(9).version, due);
        assert_eq!(core.proven(&topic), proven);
        let Some(Read::Listing { id, .. }) = core.poll(due) else {
            panic!("no listing");
        };
        core.begin_listing(id, &topic, Some(base(9)), core.rows.get("k").map(|_| "k".into()), due);
        core.take_listed(id, &topic, &row(&topic, 5));
        core.end_listing(id, &topic);
        core.end_sweep(id, &topic, due);
        // What is held has another version than the store's row: the next listing is the truth.
        assert_eq!(core.counts.went_back, 1);
        let Some(Read::Listing { id, .. }) = core.poll(due) else {
            panic!("no second listing");
        };
        core.begin_listing(id, &topic, Some(base(9)), core.rows.get("k").map(|_| "k".into()), due);
        assert!(core.take_listed(id, &topic, &row(&topic, 5)).is_some());
        assert_eq!(core.rows.version("k"), Some(5));
    }
}

/// As before, but nothing was written on the topic meanwhile, and a check finds the table beyond the update.
#[test]
fn a_state_between_the_versions_of_the_topic_and_of_the_table_is_not_kept() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let mut core = synced(&topic, Some(base(5)), &[], now);
    let mut late = update(&topic, 8);
    late.after = None;
    assert!(core.handle_update(&late, Some(&row(&topic, 8)), now).0.is_some());
    let beyond = Base { table: 9, ..base(5) };
    check(&mut core, Some(beyond), now);
    let Some(Read::Listing { id, .. }) = core.poll(now) else {
        panic!("no listing");
    };
    core.begin_listing(id, &topic, Some(beyond), ["k".into()], now);
    for key in core.end_listing(id, &topic) {
        core.sweep(id, &topic, &key);
    }
    core.end_sweep(id, &topic, now);
    assert_eq!(core.rows.version("k"), None);
}
