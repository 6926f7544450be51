//! Messages that are not updates.

use crate::random::Random;

/// An update of topic `D`, as Dragonflow would send it.
pub(crate) fn valid(key: usize) -> Vec<u8> {
    format!(r#"{{"table":"row","key":"{key}","action":"set","value":"{{}}","topic":"D"}}"#).into_bytes()
}

/// A message of any number of frames that is not an update, of at most `limit` bytes. The first frame is the topic D,
/// so that subscribers of it receive the message.
pub(crate) fn malformed(random: &mut Random, limit: usize) -> Vec<Vec<u8>> {
    let mut payload = match random.below(14) {
        0 => random.bytes(200),
        1 => {
            let mut valid = valid(1);
            valid.truncate(random.below(valid.len()));
            valid
        }
        2 => return vec![b"D".to_vec()],
        3 => return vec![b"D".to_vec(), valid(1), valid(1)],
        4 => {
            let extra = random.below(20);
            return (0..extra + 3).map(|_| b"D".to_vec()).collect();
        }
        5 => Vec::new(),
        // Maps, arrays, texts and binaries that claim to be huge.
        6 => {
            let head = [0xdf, 0xdd, 0xdb, 0xc6, 0xc9][random.below(5)];
            let mut payload = vec![head, 0xff, 0xff, 0xff, 0xff];
            payload.extend(random.bytes(20));
            payload
        }
        7 => br#"{"table":7,"key":"k","action":"set","value":null,"topic":"D"}"#.to_vec(),
        8 => br#"{"table":"t","key":["k"],"action":"set"}"#.to_vec(),
        9 => br#"{"table":"t","key":"k","action":null}"#.to_vec(),
        10 => {
            let depth = random.below(1500);
            let (open, close) = [("[", "]"), ("{\"a\":", "}")][random.below(2)];
            let deep = format!("{}1{}", open.repeat(depth.max(33)), close.repeat(depth.max(33)));
            let deep = deep.into_bytes();
            let mut payload = br#"{"table":"t","key":"k","action":"set","value":"#.to_vec();
            payload.extend(deep);
            payload.push(b'}');
            payload
        }
        11 => vec![[0x91, 0x81, 0xc1][random.below(3)]; 33 + random.below(3000)],
        // Valid, but over the limit.
        12 => {
            let mut payload = br#"{"table":"t","key":"k","action":"set","value":""#.to_vec();
            payload.resize(limit + random.below(limit), b'v');
            payload.extend(b"\"}");
            payload
        }
        _ => b"[1,2,{}]".to_vec(),
    };
    // By chance this could be an empty array, which is a valid batch without updates.
    if payload == b"[]" || payload.first() == Some(&0x90) || payload.first() == Some(&0xdc) {
        payload = b"x".to_vec();
    }
    vec![b"D".to_vec(), payload]
}
