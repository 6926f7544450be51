//! The list of clients changes while they are connected.

use std::sync::Arc;

use tablecast::transport::Driver;
use tablecast::{AddressState, Publisher, PublisherOptions, SyncReason};

use crate::LIMIT;
use crate::common::{eventually, free_port, within};
use crate::party::{Party, assert_outside, await_line, payloads, receive, send, send_until_got};
use crate::rig::{LONG, Rig, update};

#[test]
fn a_client_that_is_removed_hears_nothing_more() {
    within(LIMIT, || {
        let party = Party::new();
        let mut outbound = party.driver().outbound().unwrap();
        let address = outbound.address().unwrap();
        let server = address.split("?key=").nth(1).unwrap();
        let [mut stays, mut goes] = ["stays", "goes"].map(|name| {
            party.invite(&[name]);
            party.guest(name, server).start("sub", &address)
        });
        for client in [&mut stays, &mut goes] {
            await_line(client, "in", || ());
            send_until_got(&mut *outbound, "before", 5, client);
        }
        assert_eq!(outbound.subscribers(), Some(2));
        party.unlist("goes");
        await_line(&mut goes, "out", || send(&mut *outbound, "meanwhile"));
        // It tries again, and is refused.
        await_line(&mut goes, "out", || send(&mut *outbound, "meanwhile"));
        send_until_got(&mut *outbound, "after", 20, &mut stays);
        assert_eq!(outbound.subscribers(), Some(1));
        assert_eq!(outbound.address().unwrap(), address);
        assert_outside(goes, Some("after"));
        // One that comes back is let in again.
        party.list("goes");
        let mut back = party.guest("goes", server).start("sub", &address);
        send_until_got(&mut *outbound, "again", 1, &mut back);
    });
}

#[test]
fn a_client_that_is_removed_is_not_heard_any_more() {
    within(LIMIT, || {
        let party = Party::new();
        let address = format!("@tcp://127.0.0.1:{}", free_port());
        let mut inbound = receive(&party.driver(), &address);
        let own = party.driver().outbound().unwrap().address().unwrap();
        let server = own.split("?key=").nth(1).unwrap();
        let [_stays, mut goes] = ["stays", "goes"].map(|name| {
            party.invite(&[name]);
            party.guest(name, server).start("pub", &address)
        });
        payloads(&mut *inbound, |all| {
            ["stays", "goes"].iter().all(|name| all.iter().any(|one| one == name))
        });
        party.unlist("goes");
        // What came before the cut may still be queued.
        for _ in 0..2 {
            await_line(&mut goes, "out", || drop(payloads(&mut *inbound, |all| all.len() >= 5)));
        }
        let queued = payloads(&mut *inbound, |all| {
            all.len() >= 100 && all.ends_with(&["stays".into(), "stays".into()])
        });
        let heard = payloads(&mut *inbound, |all| all.len() >= 100);
        assert!(heard.iter().all(|name| name == "stays"), "{queued:?} {heard:?}");
    });
}

#[test]
fn the_others_come_back_without_a_silent_loss() {
    within(LIMIT, || {
        let party = Party::new();
        party.invite(&["stays", "goes"]);
        let publisher = Publisher::new(&party.driver(), PublisherOptions::default()).unwrap();
        let address = publisher.address().unwrap();
        let stays = Rig::new(&party.client("stays"));
        let goes = Rig::new(&party.client("goes"));
        for rig in [&stays, &goes] {
            rig.listen(&["D"], &address);
        }
        assert!(stays.subscriber.status().addresses[0].authenticates);
        for round in 0..4 {
            while stays.syncs.try_recv().is_ok() {}
            party.unlist("goes");
            eventually(LONG, || goes.peers()[0].1 == AddressState::Connecting);
            while !matches!(stays.next_sync(), SyncReason::Reconnected { .. }) {}
            stays.subscriber.wait_live(LONG).unwrap();
            let key = format!("k{round}");
            stays.only(&key, || publisher.send_event(&update(&key)).unwrap());
            assert!(goes.updates.is_empty());
            // Live again as soon as it is on the list.
            party.list("goes");
            goes.subscriber.wait_live(LONG).unwrap();
            let key = format!("all{round}");
            publisher.send_event(&update(&key)).unwrap();
            assert_eq!([stays.next_key(), goes.next_key()], [key.clone(), key]);
        }
    });
}

#[test]
fn clients_that_come_while_others_are_cut_off_are_let_in() {
    within(LIMIT, || {
        let party = Party::new();
        party.invite(&["stays", "goes"]);
        let publisher = Publisher::new(&party.driver(), PublisherOptions::default()).unwrap();
        let address = publisher.address().unwrap();
        let goes = Rig::new(&party.client("goes"));
        goes.listen(&["D"], &address);
        party.unlist("goes");
        let client: Arc<dyn Driver> = party.client("stays");
        let crowd: Vec<Rig> = (0..40).map(|_| Rig::new(&client)).collect();
        for rig in &crowd {
            rig.subscriber.register_listen_address(&address).unwrap();
            rig.subscriber.daemonize().unwrap();
        }
        eventually(LONG, || goes.peers()[0].1 == AddressState::Connecting);
        for rig in &crowd {
            rig.subscriber.wait_live(LONG).unwrap();
        }
    });
}
