//! What a screen shows of the rows, as keys decide.

use std::ops::{Add, Range};

use super::keys::Key;
use super::row::{HEAD, Row, Sort, arrange};
use crate::terminal::{Columns, Kind};

/// The order, the choice and the part of the rows.
#[derive(Debug, Default)]
pub(crate) struct View {
    sort: Sort,
    filter: String,
    /// Keys are text of the filter.
    is_typing: bool,
    /// The first row on the screen, and the number of rows there.
    first: usize,
    page: usize,
}

impl View {
    /// Takes a key; false if it ends the command.
    pub(crate) fn take(&mut self, key: Key) -> bool {
        match key {
            Key::Escape => {
                *self = View {
                    sort: self.sort,
                    ..View::default()
                }
            }
            Key::Enter => self.is_typing = false,
            Key::Erase if self.is_typing => drop(self.filter.pop()),
            Key::Text(c) if self.is_typing => self.filter.push(c),
            Key::Text('/') => self.is_typing = true,
            Key::Text('q') => return false,
            Key::Text(key) => self.sort = Sort::of_key(key).unwrap_or(self.sort),
            Key::Up => self.first = self.first.saturating_sub(1),
            Key::Down => self.first = self.first.saturating_add(1),
            Key::PageUp => self.first = self.first.saturating_sub(self.page),
            Key::PageDown => self.first = self.first.saturating_add(self.page),
            Key::Home => self.first = 0,
            Key::End => self.first = usize::MAX,
            Key::Erase => {}
        }
        true
    }

    /// The lines for a screen of this height, with a piece of news, if there is one.
    pub(crate) fn lines(
        &mut self,
        rows: &[Row],
        columns: impl Fn() -> Columns,
        height: usize,
        news: Option<&str>,
    ) -> Vec<String> {
        let chosen = arrange(rows, self.sort, &self.filter);
        let room = height.saturating_sub(2 + usize::from(news.is_some()));
        let is_part = chosen.len() > room;
        self.page = room.saturating_sub(usize::from(is_part)).max(1);
        self.first = self.first.min(chosen.len().saturating_sub(self.page));
        let shown = self.first..chosen.len().min(self.first + self.page);
        // A line that wraps would push the others off the screen.
        let fitting = |text: &str| columns().line(Kind::Plain, &[text]);
        let mut lines = vec![fitting(&self.summary(rows))];
        lines.extend(table(&chosen, columns(), shown.clone()));
        if is_part {
            let (first, last, all) = (shown.start + 1, shown.end, chosen.len());
            lines.push(fitting(&format!(
                "{first} to {last} of {all}; arrows, PgUp, PgDn, Home and End scroll"
            )));
        }
        lines.extend(news.map(fitting));
        lines.truncate(height);
        lines
    }

    fn summary(&self, rows: &[Row]) -> String {
        let of = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
        let topics = rows.iter().filter(|row| row.kind == "topic");
        // The sum of no numbers would be -0.0.
        let rate = topics.filter_map(|row| row.rate).fold(0.0, f64::add);
        let filter = match (self.is_typing, self.filter.as_str()) {
            (true, filter) => format!("filter: {filter}_"),
            (false, "") => "/ filters, q ends".into(),
            (false, filter) => format!("filter: {filter}"),
        };
        let sort = format!("{:?}", self.sort).to_lowercase();
        format!(
            "by {sort}; {filter}; addresses: {}, publishers: {}, replicas: {}, listeners: {}, updates/s: {rate:.1}",
            of("address"),
            of("publisher"),
            of("replica"),
            of("listener"),
        )
    }
}

/// The head, and the lines of some of the rows; the columns suit all of them.
pub(crate) fn table(rows: &[Row], mut columns: Columns, shown: Range<usize>) -> Vec<String> {
    let cells: Vec<[String; 9]> = rows.iter().map(Row::cells).collect();
    let cells: Vec<[&str; 9]> = cells.iter().map(|cells| cells.each_ref().map(String::as_str)).collect();
    columns.fit(&HEAD);
    cells.iter().for_each(|cells| columns.fit(cells));
    let mut lines = vec![columns.line(Kind::Head, &HEAD)];
    let shown = rows.iter().zip(&cells).take(shown.end).skip(shown.start);
    lines.extend(shown.map(|(row, cells)| columns.line(row.look(), cells)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_filter_and_end() {
        let mut view = View::default();
        let mut press = |keys: &str| keys.chars().all(|key| view.take(Key::Text(key)));
        assert!(press("r/quiät"));
        assert!(view.take(Key::Erase) && view.take(Key::Up) && view.take(Key::Enter));
        assert_eq!(
            (view.sort, view.filter.as_str(), view.is_typing),
            (Sort::Rate, "quiä", false)
        );
        assert!(view.take(Key::Escape));
        assert_eq!((view.sort, view.filter.as_str()), (Sort::Rate, ""));
        assert!(!view.take(Key::Text('q')));
    }

    /// The names on a screen of 8 lines, and its last line.
    fn shown(view: &mut View, rows: &[Row], news: Option<&str>) -> (String, String) {
        let lines = view.lines(rows, || Columns::on(false), 8, news);
        assert!(lines.len() <= 8, "{lines:#?}");
        let name = |line: &String| line.strip_prefix("topic  ")?.split(' ').next().map(str::to_owned);
        (lines.iter().filter_map(name).collect(), lines.last().unwrap().clone())
    }

    #[test]
    fn rows_beyond_the_screen_are_reached() {
        let rows: Vec<Row> = ('a'..='l')
            .map(|name| Row::new("topic", &name.to_string(), "live"))
            .collect();
        let mut view = View::default();
        let mut after = |key| {
            assert!(view.take(key));
            shown(&mut view, &rows, None).0
        };
        assert_eq!(after(Key::Home), "abcde");
        assert_eq!(after(Key::Down), "bcdef");
        assert_eq!(after(Key::PageDown), "ghijk");
        assert_eq!(after(Key::PageDown), "hijkl");
        assert_eq!(after(Key::Up), "ghijk");
        assert_eq!(after(Key::PageUp), "bcdef");
        assert_eq!(after(Key::End), "hijkl");
        let last = "8 to 12 of 12; arrows, PgUp, PgDn, Home and End scroll";
        assert_eq!(shown(&mut view, &rows, None).1, last);
        assert_eq!(shown(&mut view, &rows, Some("news")), ("hijk".into(), "news".into()));
        // There are fewer now, all of them on the screen.
        assert_eq!(shown(&mut view, &rows[..6], None).0, "abcdef");
    }
}
