//! Replies that are arrays of texts and numbers, as the pages of tables are. The `redis` crate takes several times as
//! long for them.

use ::redis::Value;

use super::reply::{count, line};

/// The value of a whole reply, if it is an array of texts, numbers and nulls; all else is left to the crate.
pub(super) fn flat(reply: &[u8]) -> Option<Value> {
    let (head, mut at) = line(reply).ok()??;
    let elements = count(head.strip_prefix(b"*")?).ok()?;
    // None is shorter than a null.
    let mut values = Vec::with_capacity(elements.min(reply.len() / b"_\r\n".len()));
    for _ in 0..elements {
        let (head, length) = line(reply.get(at..)?).ok()??;
        at += length;
        let (kind, rest) = head.split_first()?;
        values.push(match kind {
            b'$' if rest == b"-1" => Value::Nil,
            b'$' => {
                let text = reply.get(at..)?.get(..count(rest).ok()?)?;
                at += text.len() + 2;
                if reply.get(at - 2..at)? != b"\r\n" {
                    return None;
                }
                Value::BulkString(text.to_vec())
            }
            b':' => Value::Int(std::str::from_utf8(rest).ok()?.parse().ok()?),
            b'_' if rest.is_empty() => Value::Nil,
            _ => return None,
        });
    }
    (at == reply.len()).then_some(Value::Array(values))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use redis::parse_redis_value;

    use super::*;

    fn element() -> impl Strategy<Value = Vec<u8>> {
        let text = vec(any::<u8>(), 0..40).prop_map(|text| {
            let head = format!("${}\r\n", text.len());
            [head.as_bytes(), &text, b"\r\n"].concat()
        });
        let number = any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes());
        let null = prop_oneof![Just(b"_\r\n".to_vec()), Just(b"$-1\r\n".to_vec())];
        prop_oneof![4 => text, 2 => number, 1 => null]
    }

    fn array() -> impl Strategy<Value = Vec<u8>> {
        let head = |elements: &Vec<Vec<u8>>| format!("*{}\r\n", elements.len()).into_bytes();
        vec(element(), 0..20).prop_map(move |elements| [head(&elements), elements.concat()].concat())
    }

    proptest! {
        #[test]
        fn an_array_has_the_value_that_the_crate_finds(reply in array()) {
            prop_assert_eq!(flat(&reply), parse_redis_value(&reply).ok());
        }

        /// Whatever one byte is, the crate agrees, or is asked.
        #[test]
        fn no_other_bytes_have_another_value(mut reply in array(), at: prop::sample::Index, byte: u8, cut: bool) {
            let at = at.index(reply.len());
            match cut {
                true => reply.truncate(at),
                false => reply[at] = byte,
            }
            if let Some(value) = flat(&reply) {
                prop_assert_eq!(Some(value), parse_redis_value(&reply).ok());
            }
        }
    }

    #[test]
    fn what_is_not_flat_is_left_to_the_crate() {
        for reply in [
            &b"+OK\r\n"[..],
            b"*1\r\n*0\r\n",
            b"*1\r\n+OK\r\n",
            b"*-1\r\n",
            b"*9999999\r\n",
            b">0\r\n",
            b"-ERR\r\n",
            b"",
        ] {
            assert_eq!(flat(reply), None, "{reply:?}");
        }
    }
}
