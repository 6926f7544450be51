//! Indexes, handlers and waits with several workers.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use tablecast::ErrorKind;
use tablecast::database::Entry;
use tablecast::replica::RowChange;
use tablecast::store::Write;

use crate::common::{eventually, within};
use crate::handlers::gate;
use crate::told::Told;
use crate::{LONG, World, holds, topic};

/// A change that an index does not have yet reaches no handler, registered before, meanwhile or later; nor does a wait
/// take it for included.
#[test]
fn an_index_is_ahead_of_handlers_and_waits() {
    within(LONG, || {
        let world = World::new(4);
        world.store.create("t", "0", "x", &topic("a")).unwrap();
        let replica = world.replica(holds(&["a"]));
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        let (held_up, visitors, open) = gate();
        let index = Arc::new(table.index(move |row: &Entry<String>| {
            if row.row == "held up" {
                held_up.pass();
            }
            [row.row.clone()]
        }));
        let (lacks, lacked) = unbounded();
        let look = || {
            let (index, lacks) = (Arc::clone(&index), lacks.clone());
            move |change: &RowChange<String>| {
                if let RowChange::Added { new } | RowChange::Changed { new, .. } = change
                    && !index.get(&new.row).iter().any(|row| row.key == new.key)
                {
                    lacks.send(new.key.clone()).unwrap();
                }
            }
        };
        let (before, _guard) = Told::after(&table, look());
        eventually(LONG, || before.count() == 1);
        let (gate, beginners, begin) = gate();
        let first = look();
        let (meanwhile, _guard) = Told::after(&table, move |change| {
            first(change);
            gate.pass();
        });
        beginners.recv_timeout(LONG).unwrap();
        let create = Write::create("t", "1", "held up");
        world.database.write(&create.topic(&topic("a")), 5).unwrap();
        visitors.recv_timeout(LONG).unwrap();
        let (later, _guard) = Told::after(&table, look());
        drop(begin);
        let waited = replica.wait_current(Duration::from_millis(300));
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!((before.count(), later.count()), (1, 0));
        drop(open);
        replica.wait_current(LONG).unwrap();
        assert_eq!(index.get("held up").len(), 1);
        eventually(LONG, || {
            [&before, &meanwhile, &later].iter().all(|told| told.count() == 2)
        });
        assert!(lacked.is_empty(), "{:?}", lacked.try_recv());
    });
}
