//! Lines for people, in columns and colour on a terminal; programs get JSON.

use std::borrow::Cow;
use std::io::IsTerminal;

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Columns.
    Text,
}

/// The flag of the commands that print either.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct FormatArgs {
    /// Print columns or JSON lines; auto is columns on a terminal.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
}

impl FormatArgs {
    /// The columns to print into; `None` is JSON.
    pub(crate) fn columns(self) -> Option<Columns> {
        let is_terminal = std::io::stdout().is_terminal();
        match self.format {
            Format::Json => None,
            Format::Auto if !is_terminal => None,
            Format::Auto | Format::Text => Some(Columns::on(is_terminal)),
        }
    }

    /// True if JSON is asked for: for a command that prints a table wherever its output goes.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

/// The kind of a line, which decides on the colour of its first cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Good,
    Changed,
    Bad,
    Event,
    Plain,
}

impl Kind {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Kind::Head => Style::new().bold(),
            Kind::Good => colour(AnsiColor::Green),
            Kind::Changed => colour(AnsiColor::Yellow),
            Kind::Bad => colour(AnsiColor::Red),
            Kind::Event => colour(AnsiColor::Cyan),
            Kind::Plain => Style::new(),
        }
    }
}

/// No column is made wider than this for the sake of one long cell.
const WIDEST: usize = 40;

/// Columns that grow with what is printed.
#[derive(Debug)]
pub(crate) struct Columns {
    widths: Vec<usize>,
    is_coloured: bool,
    /// Of the terminal: what is longer is cut off.
    width: Option<usize>,
}

impl Columns {
    fn on(is_terminal: bool) -> Columns {
        let size = is_terminal
            .then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok())
            .flatten();
        Columns {
            widths: Vec::new(),
            is_coloured: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            width: size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0),
        }
    }

    /// Makes room for these cells.
    pub(crate) fn fit(&mut self, cells: &[&str]) {
        self.widths.resize(self.widths.len().max(cells.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(shown(cell).chars().count().min(WIDEST));
        }
    }

    /// A line of these cells, without its end. Events stand across the columns.
    pub(crate) fn line(&mut self, kind: Kind, cells: &[&str]) -> String {
        self.fit(if kind == Kind::Event { &cells[..1] } else { cells });
        let mut room = self.width.unwrap_or(usize::MAX);
        let mut line = String::new();
        let mut gap = 0;
        for (number, cell) in cells.iter().enumerate() {
            let width = self.widths.get(number).copied().unwrap_or_default();
            let cell = shown(cell);
            if cell.is_empty() {
                gap += width + 2;
                continue;
            }
            if room <= gap {
                break;
            }
            line.extend(std::iter::repeat_n(' ', gap));
            room -= gap;
            let cell = cut(&cell, room);
            let length = cell.chars().count();
            match self.is_coloured && (number == 0 || kind == Kind::Head) {
                true => {
                    let style = kind.style();
                    line.push_str(&format!("{style}{cell}{style:#}"));
                }
                false => line.push_str(&cell),
            }
            room -= length;
            gap = width.saturating_sub(length) + 2;
        }
        line
    }
}

/// The text without characters that would command the terminal.
fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut safe = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe.into()
}

/// The text, or as much of it as there is room for.
fn cut(text: &str, room: usize) -> String {
    match text.chars().nth(room) {
        None => text.to_owned(),
        Some(_) => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(width: Option<usize>, is_coloured: bool) -> Columns {
        Columns {
            widths: Vec::new(),
            is_coloured,
            width,
        }
    }

    #[test]
    fn columns_grow_and_lines_have_no_spaces_at_their_ends() {
        let mut columns = columns(None, false);
        assert_eq!(columns.line(Kind::Plain, &["set", "t", "k"]), "set  t  k");
        assert_eq!(columns.line(Kind::Plain, &["delete", "", "key"]), "delete     key");
        assert_eq!(columns.line(Kind::Plain, &["set", "table", ""]), "set     table");
        assert_eq!(columns.line(Kind::Plain, &["set", "t", "k"]), "set     t      k");
    }

    #[test]
    fn a_line_ends_where_the_terminal_does() {
        let mut columns = columns(Some(10), false);
        assert_eq!(columns.line(Kind::Plain, &["0123456789"]), "0123456789");
        assert_eq!(columns.line(Kind::Plain, &["0123456789ä"]), "012345678…");
        assert_eq!(columns.line(Kind::Plain, &["a", "b"]), "a");
    }

    #[test]
    fn only_the_first_cell_has_the_colour_and_the_column_its_width() {
        let mut columns = columns(None, true);
        let line = columns.line(Kind::Good, &["added", "x"]);
        assert_eq!(line, "\u{1b}[32madded\u{1b}[0m  x");
        assert_eq!(columns.line(Kind::Plain, &["", "x"]), "       x");
    }

    #[test]
    fn an_event_stands_across_the_columns() {
        let mut columns = columns(None, false);
        assert_eq!(columns.line(Kind::Event, &["sync", "a long text"]), "sync  a long text");
        assert_eq!(columns.line(Kind::Plain, &["set", "t", "k"]), "set   t  k");
    }

    #[test]
    fn nothing_commands_the_terminal() {
        let mut columns = columns(None, false);
        assert_eq!(columns.line(Kind::Plain, &["a\u{1b}[2Jb\n"]), "a\\u{1b}[2Jb\\n");
    }
}
