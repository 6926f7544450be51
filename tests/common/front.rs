//! Stores that stand in front of another one.

/// Passes the named calls of a [`Store`](tablecast::Store) on to the store that `|this| ..` leads to.
macro_rules! pass_on {
    (|$this:ident| $store:expr; $($call:ident)*) => { $($crate::front::pass_on!(@$call |$this| $store);)* };
    (@get $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, get(
            table: &str, key: &str, topic: Option<&tablecast::Topic>
        ) -> tablecast::store::Row);
    };
    (@write $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, write(write: &tablecast::store::Write<'_>) -> tablecast::store::Written);
    };
    (@write_each $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, write_each(
            writes: &[tablecast::store::Write<'_>]
        ) -> Vec<tablecast::Result<tablecast::store::Written>>);
    };
    (@page_of_entries $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, page_of_entries(
            table: &str, topic: Option<&tablecast::Topic>, after: Option<&str>
        ) -> tablecast::store::Page<tablecast::store::Row>);
    };
    (@page_of_keys $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, page_of_keys(
            table: &str, topic: Option<&tablecast::Topic>, after: Option<&str>
        ) -> tablecast::store::Page<tablecast::Name>);
    };
    (@create_table $($to:tt)*) => { $crate::front::pass_on!($($to)*, create_table(table: &str) -> bool); };
    (@delete_table $($to:tt)*) => { $crate::front::pass_on!($($to)*, delete_table(table: &str) -> bool); };
    (@delete_rows $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, delete_rows(table: &str, keys: &[tablecast::Name]) -> usize);
    };
    (@allocate_unique_key $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, allocate_unique_key(table: &str) -> u64);
    };
    (@table_version $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, table_version(table: &str) -> Option<tablecast::store::TableVersion>);
    };
    (@topic_versions $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, topic_versions(
            table: &str, topics: &[tablecast::Topic]
        ) -> Option<tablecast::store::TopicVersions>);
    };
    (@changes $($to:tt)*) => {
        $crate::front::pass_on!($($to)*, changes(
            table: &str, topic: &tablecast::Topic, since: tablecast::store::TableVersion
        ) -> tablecast::store::Changes);
    };
    (|$this:ident| $store:expr, $call:ident($($name:ident: $type:ty),*) -> $result:ty) => {
        fn $call(&self, $($name: $type),*) -> tablecast::Result<$result> {
            let $this = self;
            $store.$call($($name),*)
        }
    };
}

pub(crate) use pass_on;
