//! A Redis server that goes back to an earlier state, or loses everything.

use tablecast::store::DELETES_REMEMBERED;

use super::model::{Fate, Table};
use super::{Loss, run};
use crate::random::Random;
use crate::servers::Server;

/// A key, and its value as `DUMP` gives it.
type Dumped = (Vec<u8>, Vec<u8>);

/// The model's server.
struct Losing {
    connection: redis::Connection,
    /// A copy of everything, and of the model.
    kept: Option<(Vec<Dumped>, Vec<Table>)>,
}

impl Loss for Losing {
    fn lose(&mut self, random: &mut Random, tables: &mut [Table]) {
        let kept = self.kept.take().filter(|(_, kept)| kept[0].name == tables[0].name);
        let is_all = random.below(4) == 0;
        let (keys, kept) = match kept {
            None if !is_all => return self.kept = Some((self.dump(), tables.to_vec())),
            Some(kept) if !is_all => kept,
            _ => (Vec::new(), Vec::new()),
        };
        let () = redis::cmd("FLUSHALL").query(&mut self.connection).unwrap();
        for (key, value) in keys {
            let mut restore = redis::cmd("RESTORE");
            let () = restore.arg(key).arg(0).arg(value).query(&mut self.connection).unwrap();
        }
        for (at, table) in tables.iter_mut().enumerate() {
            let mut seen = std::mem::take(&mut table.seen);
            let empty = Table::new(table.name.clone(), DELETES_REMEMBERED);
            *table = kept.get(at).cloned().unwrap_or(empty);
            for (seen, fate) in seen.iter_mut().filter(|(seen, _)| seen.version > 0) {
                let was = table.seen.iter().find(|(kept, _)| kept == seen);
                *fate = match was {
                    _ if table.version == 0 => Fate::Gone,
                    Some((_, was)) => *was,
                    None if *fate == Fate::Kept && seen.version > table.version => Fate::Lost,
                    None => *fate,
                };
            }
            table.seen = seen;
        }
    }
}

impl Losing {
    fn dump(&mut self) -> Vec<Dumped> {
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut self.connection).unwrap();
        keys.into_iter()
            .map(|key| {
                let value = redis::cmd("DUMP").arg(&key).query(&mut self.connection).unwrap();
                (key, value)
            })
            .collect()
    }
}

/// What was read after the state that came back is recognized as lost, and all else holds as before.
#[test]
fn a_server_that_goes_back() {
    let server = Server::start();
    let client = redis::Client::open(format!("redis://{}", server.host())).unwrap();
    let mut loss = Losing {
        connection: client.get_connection().unwrap(),
        kept: None,
    };
    let setup = crate::redis_at(server.address(), server);
    run(&setup, &mut Random::new("a_server_that_goes_back"), Some(&mut loss));
}
