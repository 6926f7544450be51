//! A cluster that moves slots while the store is used: before the first key of a table has moved, and after the last.

use std::time::Duration;

use tablecast::store::{Changes, TableVersion};
use tablecast::{ErrorKind, Result, Store, Topic};

use crate::cluster::calm;
use crate::common::{eventually, within};
use crate::rig::{LONG, quickly};
use crate::servers::{Cluster, Server};
use crate::store::{is_outage, store};

const LIMIT: Duration = Duration::from_secs(60);

/// A slot being moved from one master to another.
struct Moving<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl<'a> Moving<'a> {
    fn begin(cluster: &'a Cluster, table: &str) -> Moving<'a> {
        let slot = cluster.slot(table);
        let from = cluster.first_owner(slot);
        let to = (from + 1) % 3;
        cluster.begin_move(slot, from, to);
        Moving {
            cluster,
            slot,
            from,
            to,
        }
    }

    /// Moves all present keys.
    fn keys(&self) {
        self.cluster.move_keys(self.slot, self.from, self.to);
    }

    fn end(self) {
        self.cluster.move_slot(self.slot, self.from, self.to);
    }
}

/// Everything that can be done with a table of one row.
fn use_all(store: &dyn Store, table: &str) -> Result<()> {
    let own = Topic::new("own").unwrap();
    store.create(table, "k", "v", &own)?;
    store.set(table, "k", "w")?;
    assert_eq!(store.get(table, "k", None)?.value, "w");
    let stands = store.topic_versions(table, std::slice::from_ref(&own))?.unwrap();
    let since = TableVersion {
        version: stands.versions[0] - 1,
        ..stands.table
    };
    let Changes::Page(page) = store.changes(table, &own, since)? else {
        panic!("{since:?} is not known");
    };
    assert_eq!(page.changes[0].value.as_deref(), Some("w"));
    let rows: Vec<_> = store.entries(table, None).collect::<Result<_>>()?;
    assert_eq!(rows.len(), 2);
    assert_eq!(store.keys(table, Some(&own)).collect::<Result<Vec<_>>>()?.len(), 1);
    store.delete(table, "k")?;
    assert_eq!(store.delete(table, "k").unwrap_err().kind(), ErrorKind::NotFound);
    // Empty, and used again.
    store.delete(table, "first")?;
    assert_eq!(store.keys(table, None).count(), 0);
    store.create(table, "first", "v", &Topic::ALL)?;
    store.allocate_unique_key(table)?;
    Ok(())
}

#[test]
fn a_table_that_has_never_lost_a_row() {
    within(LIMIT, || {
        let cluster = calm();
        let store = store(&cluster.address());
        store.create("t", "first", "v", &Topic::ALL).unwrap();
        let moving = Moving::begin(&cluster, "t");
        use_all(&store, "t").unwrap();
        moving.keys();
        use_all(&store, "t").unwrap();
        moving.end();
        use_all(&store, "t").unwrap();
        assert!(store.delete_table("t").unwrap());
        // A number is allocated before there is a row.
        assert_eq!(store.allocate_unique_key("u").unwrap(), 1);
        assert!(store.create_table("u").unwrap());
        let moving = Moving::begin(&cluster, "u");
        store.create("u", "first", "v", &Topic::ALL).unwrap();
        use_all(&store, "u").unwrap();
        moving.end();
        assert!(store.delete_table("u").unwrap());
    });
}

#[test]
fn a_table_that_is_made_meanwhile() {
    within(LIMIT, || {
        let cluster = calm();
        let store = store(&cluster.address());
        let moving = Moving::begin(&cluster, "t");
        assert_eq!(store.entries("t", None).count(), 0);
        assert_eq!(store.set("t", "k", "v").unwrap_err().kind(), ErrorKind::NotFound);
        store.create("t", "first", "v", &Topic::ALL).unwrap();
        use_all(&store, "t").unwrap();
        assert!(store.delete_table("t").unwrap());
        assert!(store.create_table("t").unwrap());
        store.create("t", "first", "v", &Topic::ALL).unwrap();
        use_all(&store, "t").unwrap();
        moving.end();
        use_all(&store, "t").unwrap();
    });
}

/// The node is one of the given ones, and has no slots.
#[test]
fn a_slot_is_on_its_way_to_a_node_that_is_gone() {
    within(LIMIT, || {
        let cluster = calm();
        let mut heir = Server::with(&["--cluster-enabled", "yes"]);
        let store = store(&format!("{},{}", cluster.addresses(), heir.host()));
        let slot = cluster.slot("t");
        let owner = &cluster.nodes[cluster.first_owner(slot)];
        let () = heir.ask(&["CLUSTER", "MEET", "127.0.0.1", &owner.port().to_string()]);
        let id: String = heir.ask(&["CLUSTER", "MYID"]);
        let move_it = ["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &id];
        eventually(LONG, || owner.try_ask::<()>(&move_it).is_ok());
        heir.kill();
        let created = quickly(LONG, "create", || store.create("t", "k", "v", &Topic::ALL));
        assert!(is_outage(&created.unwrap_err()));
        let () = owner.ask(&["CLUSTER", "SETSLOT", &slot.to_string(), "STABLE"]);
        store.create("t", "k", "v", &Topic::ALL).unwrap();
    });
}
