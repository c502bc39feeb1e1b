//! Tables that fit the terminal: bars shrink, names are cut in the middle, and columns that others imply are left out.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::counts::Quantity;

/// The width of the longest bar, in characters.
const BAR: usize = 20;
/// The minimum width of a bar.
const SHORTEST_BAR: usize = 4;
/// The width below which a name is cut only if nothing else can be left out, and the minimum.
const NAME: usize = 12;
const SHORTEST_NAME: usize = 5;
/// The width of the borders of a column, and of the table besides.
const BORDER: usize = 3;
const EDGE: usize = 1;

/// The cells of a column, from the top.
enum Cells {
    /// Names, which can be cut.
    Names(Vec<String>),
    /// Values, which cannot be cut.
    Values(Vec<String>),
    /// Bars, of parts of their maximum. A row without a bar has `None`.
    Bars { counts: Vec<Option<Quantity>>, most: Quantity },
}

/// A column of a table.
pub(crate) struct Column {
    header: String,
    cells: Cells,
    /// True if the table is complete without it.
    is_optional: bool,
    alignment: CellAlignment,
}

impl Column {
    fn new(header: impl Into<String>, cells: Cells) -> Self {
        Self { header: header.into(), cells, is_optional: false, alignment: CellAlignment::Left }
    }

    /// Creates a column of printable names.
    pub(crate) fn names(header: impl Into<String>, cells: Vec<String>) -> Self {
        Self::new(header, Cells::Names(cells))
    }

    /// Creates a column of times.
    pub(crate) fn times(header: impl Into<String>, cells: Vec<String>) -> Self {
        Self::new(header, Cells::Values(cells))
    }

    /// Creates a column of values, aligned to the right.
    pub(crate) fn values(header: impl Into<String>, cells: Vec<String>) -> Self {
        Self { alignment: CellAlignment::Right, ..Self::new(header, Cells::Values(cells)) }
    }

    /// Creates a column of bars.
    pub(crate) fn bars(counts: Vec<Option<Quantity>>) -> Self {
        let most = counts.iter().flatten().copied().max().unwrap_or_default();
        Self::new("", Cells::Bars { counts, most }).optional()
    }

    /// Marks the column as one that is left out of a table that is too wide.
    pub(crate) fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }

    fn is_bars(&self) -> bool {
        matches!(self.cells, Cells::Bars { .. })
    }

    /// Returns the width without a cut.
    fn natural(&self) -> usize {
        let widest = match &self.cells {
            Cells::Names(cells) | Cells::Values(cells) => cells.iter().map(|cell| cell.width()).max(),
            Cells::Bars { .. } => Some(BAR),
        };
        widest.unwrap_or(0).max(self.header.width())
    }

    /// Returns the width to which the column can be cut, if `name` is that of a name.
    fn least(&self, name: usize) -> usize {
        let cells = match &self.cells {
            Cells::Names(_) => name,
            Cells::Values(cells) => cells.iter().map(|cell| cell.width()).max().unwrap_or(0),
            Cells::Bars { .. } => SHORTEST_BAR,
        };
        cells.max(self.header.width().min(name)).min(self.natural())
    }

    fn cell(&self, row: usize, width: usize) -> String {
        match &self.cells {
            Cells::Names(cells) => cut(cells.get(row).map_or("", String::as_str), width),
            Cells::Values(cells) => cells.get(row).cloned().unwrap_or_default(),
            Cells::Bars { counts, most } => bar(counts.get(row).copied().flatten().unwrap_or_default(), *most, width),
        }
    }

    fn rows(&self) -> usize {
        match &self.cells {
            Cells::Names(cells) | Cells::Values(cells) => cells.len(),
            Cells::Bars { counts, .. } => counts.len(),
        }
    }
}

/// Returns the width of the terminal in characters: that of the environment variable COLUMNS, or of the terminal on
/// stdout, if either is there.
pub(crate) fn terminal_width() -> Option<usize> {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    asked.or_else(|| terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0)))
}

fn total(widths: &[usize]) -> usize {
    EDGE + widths.iter().map(|width| width + BORDER).sum::<usize>()
}

/// Returns the width of the narrowest table of these columns without their optional ones.
pub(crate) fn narrowest(columns: &[Column]) -> usize {
    let kept = columns.iter().filter(|column| !column.is_optional);
    total(&kept.map(|column| column.least(NAME)).collect::<Vec<_>>())
}

/// Takes the excess off the widest columns that have more than their minimum.
fn shrink(widths: &mut [usize], least: &[usize], mut excess: usize) {
    while excess > 0 {
        let widest = (0..widths.len()).filter(|n| widths.get(*n) > least.get(*n)).max_by_key(|n| widths.get(*n));
        let Some(width) = widest.and_then(|n| widths.get_mut(n)) else { return };
        *width -= 1;
        excess -= 1;
    }
}

/// Formats a table of at most `width` characters, if its values leave room for that.
pub(crate) fn table(mut columns: Vec<Column>, width: Option<usize>) -> String {
    let limit = width.unwrap_or(usize::MAX);
    let widths = loop {
        let mut widths: Vec<usize> = columns.iter().map(Column::natural).collect();
        let excess = |widths: &[usize]| total(widths).saturating_sub(limit);
        let bars = |column: &Column| if column.is_bars() { SHORTEST_BAR } else { column.natural() };
        let over = excess(&widths);
        shrink(&mut widths, &columns.iter().map(bars).collect::<Vec<_>>(), over);
        let over = excess(&widths);
        shrink(&mut widths, &columns.iter().map(|column| column.least(NAME)).collect::<Vec<_>>(), over);
        if excess(&widths) == 0 {
            break widths;
        }
        // The bars repeat the numbers beside them; of the others, the last one goes first.
        let bars = columns.iter().rposition(Column::is_bars);
        let Some(out) = bars.or_else(|| columns.iter().rposition(|column| column.is_optional)) else {
            let over = excess(&widths);
            shrink(&mut widths, &columns.iter().map(|column| column.least(SHORTEST_NAME)).collect::<Vec<_>>(), over);
            break widths;
        };
        columns.remove(out);
    };
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().zip(&widths).map(|(column, width)| cut(&column.header, *width)));
    for row in 0..columns.iter().map(Column::rows).max().unwrap_or(0) {
        table.add_row(columns.iter().zip(&widths).map(|(column, width)| column.cell(row, *width)));
    }
    for (n, column) in columns.iter().enumerate() {
        if let Some(cells) = table.column_mut(n) {
            cells.set_cell_alignment(column.alignment);
        }
    }
    format!("{table}\n")
}

/// Cuts the middle out of a text that is wider than `width`.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let take = |chars: &mut dyn Iterator<Item = char>, room: usize| -> Vec<char> {
        let mut used = 0;
        chars
            .take_while(|c| {
                used += c.width().unwrap_or(0);
                used <= room
            })
            .collect()
    };
    let start: String = take(&mut text.chars(), room.div_ceil(2)).into_iter().collect();
    let end: String = take(&mut text.chars().rev(), room - start.width().min(room)).into_iter().rev().collect();
    start + "…" + &end
}

/// Returns the bar of a number, rounded up to an eighth of a character.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a bar has few characters"
)]
fn bar(number: Quantity, most: Quantity, width: usize) -> String {
    if number <= Quantity::default() {
        return String::new();
    }
    let eighths = (number.share_of(most) * (width * 8) as f64).ceil() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied().unwrap_or_default();
    "█".repeat(eighths / 8) + part
}

/// Breaks a text between words, into lines of at most `width` characters.
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> String {
    let limit = width.unwrap_or(usize::MAX);
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let space = usize::from(used > 0);
        if used > 0 && used + space + word.width() > limit {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += word.width();
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bar_is_proportional_to_its_count() {
        assert_eq!(bar(10.into(), 10.into(), 20).chars().count(), 20);
        assert_eq!(bar(5.into(), 10.into(), 20).chars().count(), 10);
        assert_eq!(
            (
                bar(1.into(), 1_000_000.into(), 20).as_str(),
                bar(0.into(), 10.into(), 20).as_str(),
                bar((-1).into(), 10.into(), 20).as_str()
            ),
            ("▏", "", "")
        );
        assert_eq!(bar(i64::MAX.into(), i64::MAX.into(), 20).chars().count(), 20);
    }

    #[test]
    fn name_that_is_too_wide_loses_its_middle() {
        assert_eq!(cut("Order Completed", 15), "Order Completed");
        assert_eq!(cut("Order Completed", 9), "Orde…eted");
        assert_eq!(cut("注文が完了しました", 9), "注文…した");
        assert_eq!((cut("abc", 1).as_str(), cut("abc", 0).as_str()), ("…", "…"));
    }

    #[test]
    fn text_breaks_between_words() {
        assert_eq!(wrapped("from one to two", Some(8)), "from one\nto two");
        assert_eq!(wrapped("from one to two", None), "from one to two");
    }

    fn columns(name: &str, count: i64) -> Vec<Column> {
        vec![
            Column::names("event", vec![name.to_owned(), "all".to_owned()]),
            Column::values("count", vec![count.to_string(), count.to_string()]),
            Column::bars(vec![Some(count.into()), None]),
            Column::values("share", vec!["100.0 %".to_owned(), String::new()]).optional(),
        ]
    }

    proptest! {
        #[test]
        fn table_fits_and_has_one_line_for_each_row(name in "[a-zé注🎉 ]{0,80}", count in 0_i64..1_000_000_000, width in 30_usize..250) {
            let table = table(columns(&name, count), Some(width));
            prop_assert!(table.lines().all(|line| line.width() <= width), "{table}");
            prop_assert_eq!(table.lines().count(), 6);
            prop_assert!(table.contains(&count.to_string()));
        }
    }

    #[test]
    fn narrow_table_loses_bars_first_and_keeps_the_counts() {
        let text = |width| table(columns("Subscription Renewal Reminder Sent", 1234), width);
        assert!(text(None).contains("Subscription Renewal Reminder Sent") && text(None).contains(&"█".repeat(20)));
        assert!(text(Some(60)).contains("Subs") && text(Some(60)).contains("████") && text(Some(60)).contains("share"));
        assert!(!text(Some(38)).contains('█') && text(Some(38)).contains("share"));
        assert!(!text(Some(26)).contains("share") && text(Some(26)).contains("1234"));
    }
}
