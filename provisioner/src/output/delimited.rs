//! Rows of fields as CSV and TSV.
//!
//! A name can be any text, so three things are done to it, each of which can be undone:
//!
//! 1. Control characters are escaped: `\n`, `\r`, `\t`, and `\u{1b}` for others. In TSV a backslash is always escaped as
//!    `\\`, in CSV only in a name that has a control character or that could be read as one of these escapes.
//! 2. A spreadsheet evaluates a cell that begins like a formula (OWASP, CSV injection), also the cell behind a `;` if it
//!    separates cells by that. An apostrophe in front of the sign marks the cell as text. So that it can be taken off
//!    again, an apostrophe that is there already gets one too.
//! 3. In CSV a field with a comma or a quote is quoted (RFC 4180).

/// Returns whether a spreadsheet takes a cell that begins with this character for a formula. Some read full-width signs
/// as the plain ones.
fn begins_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠')
}

/// Marks each cell that a spreadsheet could take for a formula as text. A number is none.
fn guarded(field: &str) -> String {
    if field.parse::<i64>().is_ok() {
        return field.to_owned();
    }
    let (mut out, mut is_start) = (String::with_capacity(field.len()), true);
    for c in field.chars() {
        if is_start && (begins_formula(c) || c == '\'') {
            out.push('\'');
        }
        // A spreadsheet may ignore spaces and quotes in front of a formula.
        is_start = matches!(c, ';' | '\t' | '\r' | '\n') || (is_start && (c.is_whitespace() || c == '"'));
        out.push(c);
    }
    out
}

/// Escapes control characters and backslashes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Escapes a text that has control characters, or that could be read as an escape.
fn escaped_if_needed(text: &str) -> String {
    let is_escape = ["\\t", "\\n", "\\r", "\\\\", "\\u{"].iter().any(|escape| text.contains(escape));
    if is_escape || text.contains(char::is_control) { escaped(text) } else { text.to_owned() }
}

/// Formats rows as CSV, with a comma between fields and `\n` behind each line.
pub(crate) fn csv(rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        // Writing into memory does not fail, and all rows have the fields of the header.
        let _ = writer.write_record(row.iter().map(|field| escaped_if_needed(&guarded(field))));
    }
    writer.into_inner().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Formats rows as TSV, with a tab between fields and `\n` behind each line.
pub(crate) fn tsv(rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |row: Vec<String>| {
        let fields: Vec<String> = row.iter().map(|field| escaped(&guarded(field))).collect();
        fields.join("\t") + "\n"
    };
    rows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Undoes the escapes.
    fn unescaped(text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(c) = rest.chars().next() {
            let plain = [("\\t", '\t'), ("\\n", '\n'), ("\\r", '\r'), ("\\\\", '\\')];
            if let Some((escape, c)) = plain.iter().find(|(escape, _)| rest.starts_with(escape)) {
                out.push(*c);
                rest = &rest[escape.len()..];
            } else if let Some((code, after)) = rest.strip_prefix("\\u{").and_then(|rest| rest.split_once('}')) {
                let c = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
                out.push(c.expect("a character"));
                rest = after;
            } else {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        out
    }

    /// Takes the apostrophes off the cells.
    fn unguarded(field: &str) -> String {
        let (mut out, mut is_start) = (String::new(), true);
        let mut chars = field.chars();
        while let Some(c) = chars.next() {
            let c = if is_start && c == '\'' { chars.next().expect("a guarded character") } else { c };
            is_start = matches!(c, ';' | '\t' | '\r' | '\n') || (is_start && (c.is_whitespace() || c == '"'));
            out.push(c);
        }
        out
    }

    fn read_csv(text: &str) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let row = |row: csv::StringRecord| row.iter().map(|field| unguarded(&unescaped(field))).collect();
        reader.records().map(|record| row(record.expect("a row"))).collect()
    }

    fn read_tsv(text: &str) -> Vec<Vec<String>> {
        let row = |line: &str| line.split('\t').map(|field| unguarded(&unescaped(field))).collect();
        text.split_terminator('\n').map(row).collect()
    }

    /// Any Unicode text, and texts of characters with a meaning.
    fn names() -> impl Strategy<Value = String> {
        let special = prop::sample::select(
            "\\\t\n\r,;'\"=+-@＝＠ \u{1b}\u{9b}\u{0}nrtu{}1b]Px\u{202e}".chars().collect::<Vec<_>>(),
        );
        prop_oneof![
            any::<String>(),
            prop::collection::vec(special, 0..12).prop_map(|chars| chars.into_iter().collect())
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_name_survives_a_round_trip_and_is_no_formula(names in prop::collection::vec(names(), 1..5), count: i64) {
            let row: Vec<String> = names.iter().cloned().chain([count.to_string()]).collect();
            let rows = || vec![row.clone(), row.clone()].into_iter();
            let (comma, tab) = (csv(rows()), tsv(rows()));
            prop_assert_eq!(read_csv(&comma), rows().collect::<Vec<_>>());
            prop_assert_eq!(read_tsv(&tab), rows().collect::<Vec<_>>());
            for text in [comma, tab] {
                prop_assert!(!text.replace(['\n', '\t'], "").contains(char::is_control), "{text:?}");
                let cells = text.split([';', '\t', '\n']).filter(|cell| cell.parse::<i64>().is_err());
                let mut cells = cells.filter(|cell| !cell.contains(','));
                prop_assert!(!cells.any(|cell| cell.trim_start_matches([' ', '"']).starts_with(begins_formula)), "{text:?}");
            }
        }
    }

    #[test]
    fn cell_that_begins_like_a_formula_gets_an_apostrophe() {
        let rows = || {
            [["=1+1", "a,b", "-5"], ["@x", "say \"hi\"", "-x"], ["a;=1", "'x", "＝1"]]
                .map(|row| row.map(str::to_owned).to_vec())
                .into_iter()
        };
        assert_eq!(csv(rows()), "'=1+1,\"a,b\",-5\n'@x,\"say \"\"hi\"\"\",'-x\na;'=1,''x,'＝1\n");
        assert_eq!(tsv(std::iter::once(vec!["a\tb\nc".to_owned(), "1".to_owned()])), "a\\tb\\nc\t1\n");
    }

    #[test]
    fn control_character_is_escaped_and_other_backslashes_stay() {
        let field = |name: &str| csv(std::iter::once(vec![name.to_owned()]));
        assert_eq!(field("a\u{1b}]b\u{9b}"), "a\\u{1b}]b\\u{9b}\n");
        assert_eq!([field("C:\\dir"), field("C:\\new")], ["C:\\dir\n", "C:\\\\new\n"]);
    }
}
