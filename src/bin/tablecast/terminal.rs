//! Lines for people, in columns and colour on a terminal; programs get JSON.

use std::borrow::Cow;
use std::io::IsTerminal;

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

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
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// A table, also in a pipe.
    #[value(alias = "auto")]
    Text,
    /// One JSON object per line.
    Json,
}

/// The flag of the commands that print a table wherever their output goes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct TableArgs {
    /// Print a table or JSON lines.
    #[arg(long, value_enum, default_value = "text")]
    format: TableFormat,
}

impl TableArgs {
    pub(crate) fn is_json(self) -> bool {
        self.format == TableFormat::Json
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
    widest: usize,
    is_coloured: bool,
    /// Of the terminal: what is longer is cut off.
    width: Option<usize>,
}

impl Columns {
    pub(crate) fn on(is_terminal: bool) -> Columns {
        Columns {
            widths: Vec::new(),
            widest: WIDEST,
            is_coloured: is_coloured(is_terminal),
            width: is_terminal.then(|| size().0),
        }
    }

    /// Makes room for these cells.
    pub(crate) fn fit(&mut self, cells: &[&str]) {
        self.widths.resize(self.widths.len().max(cells.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(width_of(&shown(cell)).min(self.widest));
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
            let length = width_of(&cell);
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

/// A table of known rows: each column is as wide as its widest cell, and nothing is cut off.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut columns = Columns {
        widest: usize::MAX,
        ..Columns::on(false)
    };
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    rows.iter().for_each(|cells| columns.fit(cells));
    rows.iter()
        .map(|cells| columns.line(Kind::Plain, cells) + "\n")
        .collect()
}

/// True if a terminal is to show colours.
pub(crate) fn is_coloured(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The columns and lines of the terminal at stdout. One that does not know its size, as on a serial line, has 80 and 24.
pub(crate) fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let known = |length: u16, otherwise| if length == 0 { otherwise } else { usize::from(length) };
    size.map_or((80, 24), |size| (known(size.ws_col, 80), known(size.ws_row, 24)))
}

/// The text without characters that would command the terminal, or turn the direction of what follows.
fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(commands) {
        return text.into();
    }
    let mut safe = String::new();
    for c in text.chars() {
        match commands(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe.into()
}

fn commands(c: char) -> bool {
    let is_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_direction
}

/// The number of columns that a terminal takes for a text. Most add up its characters, also where several make one picture.
fn width_of(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The text, or as much of it as there is room for.
fn cut(text: &str, room: usize) -> String {
    if width_of(text) <= room {
        return text.to_owned();
    }
    let mut left = room.saturating_sub(1);
    let fits = |c: &char| {
        let is_in = columns_of(*c) <= left;
        left = left.saturating_sub(columns_of(*c));
        is_in
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(width: Option<usize>, is_coloured: bool) -> Columns {
        Columns {
            widths: Vec::new(),
            widest: WIDEST,
            is_coloured,
            width,
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows = [["端口", "x"], ["abc", "y"], ["a\n", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "端口  x\nabc   y\na\\n\n");
        let wide = "x".repeat(2 * WIDEST);
        let rows = [[wide.clone(), "y".into()], ["x".into(), "y".into()]];
        assert_eq!(table(&rows), format!("{wide}  y\nx{}y\n", " ".repeat(2 * WIDEST + 1)));
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
    fn a_character_takes_the_columns_that_a_terminal_gives_it() {
        let mut columns = columns(Some(14), false);
        // Two columns each; none of its own.
        assert_eq!(columns.line(Kind::Plain, &["端口🦀", "x"]), "端口🦀  x");
        assert_eq!(columns.line(Kind::Plain, &["e\u{301}t", "y"]), "e\u{301}t      y");
        assert_eq!(columns.line(Kind::Plain, &["a", "端口端"]), "a       端口端");
        assert_eq!(columns.line(Kind::Plain, &["a", "端口端x"]), "a       端口…");
        assert_eq!(columns.line(Kind::Plain, &["a", "x端口端"]), "a       x端口…");
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
        assert_eq!(columns.line(Kind::Plain, &["a\u{202e}b"]), "a\\u{202e}b");
    }
}
