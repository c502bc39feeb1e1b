//! Text for terminals: escapes, numbers and nouns.

/// Escapes every character that a terminal would interpret or that would change the layout of the text around it.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional controls and invisible separators reorder or hide the text after them.
        let hidden =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || hidden {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Groups digits by three: `1,234,567`.
pub(crate) fn grouped(count: i64) -> String {
    let out = grouped_digits(&count.unsigned_abs().to_string());
    if count < 0 { format!("-{out}") } else { out }
}

/// Groups the digits of a number without a sign.
pub(crate) fn grouped_digits(digits: &str) -> String {
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a number with its noun: `1 object`, `2,000 objects`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(i64::try_from(n).unwrap_or(i64::MAX)), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_has_no_control_characters() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}c\n"), "a\\u{1b}[31mb\\u{202e}c\\u{a}");
        assert_eq!(printable("Bücher „größer“ 注文"), "Bücher „größer“ 注文");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, -1_234_567].map(grouped), ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!([counted(1, "object"), counted(2000, "object")], ["1 object", "2,000 objects"]);
    }
}
