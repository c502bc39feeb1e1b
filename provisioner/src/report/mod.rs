//! Renderings. Nothing here decides anything.

pub mod counts;
pub mod human;
pub mod json;
pub mod markdown;
pub mod operate;
pub mod progress;

/// The text with everything in it that a terminal would obey, or that would lay it out otherwise, made visible.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional controls and invisible separators reorder or hide what follows them.
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

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}c\n"), "a\\u{1b}[31mb\\u{202e}c\\u{a}");
        assert_eq!(printable("Bücher „größer“ 注文"), "Bücher „größer“ 注文");
    }
}
