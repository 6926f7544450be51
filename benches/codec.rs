//! The cost of encoding and decoding one update, next to serde's derived code for a plain struct.
//!
//! `cargo bench --no-default-features --bench codec`

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tablecast::codec::{Batch, Codec, Decoder, Encoder};
use tablecast::{Action, DbUpdate, Topic};

/// The same fields, without the library's additions.
#[derive(Serialize, Deserialize)]
struct Plain {
    table: String,
    key: String,
    action: String,
    value: Option<String>,
    topic: String,
    priority: i32,
    timestamp: i64,
    publisher: String,
    epoch: u64,
    seq: u64,
}

const BATCH: usize = 100;

fn main() {
    let update = DbUpdate::new("lport", "0e1c5a52-6a2f-4b5e-8d8f-2f6c1f3f9d10", Action::Set)
        .value(r#"{"chassis":"host1","ip":"10.0.0.3","lswitch":"net1"}"#);
    for codec in [Codec::Json, Codec::MessagePack] {
        run(codec, &update);
    }
}

fn run(codec: Codec, update: &DbUpdate) {
    let encoder = Encoder::new(codec, "host1-4711".into(), 1_700_000_000_000_000);
    let topic = Topic::ALL;
    let mut payload = Vec::new();
    encoder.begin(update, &topic, &mut payload);
    encoder.finish(0, update.timestamp, 123_456, Duration::ZERO, &mut payload);
    println!("{codec}, {} bytes, nanoseconds", payload.len());

    let plain: Plain = match codec {
        Codec::Json => serde_json::from_slice(&payload).expect("plain"),
        _ => rmp_serde::from_slice(&payload).expect("plain"),
    };
    let theirs = nanos(|| {
        let plain = black_box(&plain);
        match codec {
            Codec::Json => drop(black_box(serde_json::to_vec(plain))),
            _ => drop(black_box(rmp_serde::to_vec_named(plain))),
        }
    });
    let mut buf = Vec::new();
    let ours = nanos(|| {
        buf.clear();
        encoder.begin(black_box(update), &topic, &mut buf);
        encoder.finish(0, update.timestamp, 123_456, Duration::ZERO, &mut buf);
        black_box(&buf);
    });
    report("encode", ours, theirs);
    let finish = nanos(|| {
        buf.clear();
        encoder.finish(0, update.timestamp, black_box(123_456), Duration::ZERO, &mut buf);
        black_box(&buf);
    });
    report("encode, of it under the lock", finish, theirs);

    let theirs = nanos(|| {
        let payload = black_box(&payload);
        match codec {
            Codec::Json => drop(black_box(serde_json::from_slice::<Plain>(payload))),
            _ => drop(black_box(rmp_serde::from_slice::<Plain>(payload))),
        }
    });
    let (mut decoder, mut out) = (Decoder::new(), Vec::new());
    let ours = nanos(|| {
        out.clear();
        decoder.decode(&topic, black_box(&payload), &mut out).expect("valid");
        black_box(&out);
    });
    report("decode", ours, theirs);

    let mut batch = Batch::new();
    (0..BATCH).for_each(|_| encoder.push(update, &topic, &mut batch));
    buf.clear();
    encoder.finish_batch(1, Duration::ZERO, |own| own, &batch, &mut buf);
    let ours = nanos(|| {
        out.clear();
        decoder.decode(&topic, black_box(&buf), &mut out).expect("valid");
        black_box(&out);
    });
    report("decode, per update of a batch", ours / BATCH as f64, theirs);
    let ours = nanos(|| {
        buf.clear();
        encoder.finish_batch(1, Duration::ZERO, |own| own, black_box(&batch), &mut buf);
    });
    report("finish_batch, per update", ours / BATCH as f64, theirs);

    let cut = &payload[..payload.len() - 1];
    let ours = nanos(|| drop(black_box(decoder.decode(&topic, black_box(cut), &mut out))));
    report("refuse a truncated one", ours, theirs);
}

fn report(what: &str, ours: f64, theirs: f64) {
    println!(
        "  {what:<30}  serde {theirs:>6.0}   tablecast {ours:>6.0}   ratio {:.2}",
        ours / theirs
    );
}

/// The best of several runs: the cost of the code when nothing disturbs it.
fn nanos(mut body: impl FnMut()) -> f64 {
    let runs = (0..20).map(|_| {
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(15) {
            (0..100).for_each(|_| body());
            count += 100;
        }
        start.elapsed().as_nanos() as f64 / f64::from(count)
    });
    runs.fold(f64::INFINITY, f64::min)
}
