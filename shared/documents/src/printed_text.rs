//! Makes text from other people printable: nothing hidden, no reversed direction, limited length.

/// One line of at most `limit` characters: without control and formatting characters, with single blanks.
pub(super) fn line(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(4 * limit));
    let mut length = 0;
    let mut is_apart = false;
    for letter in text.chars().filter(|letter| !is_hidden(*letter)) {
        if is_blank(letter) {
            is_apart = length > 0;
            continue;
        }
        if length + usize::from(is_apart) >= limit {
            // The last letter makes room for the sign that says text was cut.
            line.pop();
            line.push('…');
            break;
        }
        if is_apart {
            line.push(' ');
        }
        line.push(letter);
        length += 1 + usize::from(is_apart);
        is_apart = false;
    }
    line
}

/// The lines of a text that are not blank, at most `limit` characters and 40 lines of it.
pub(super) fn lines(text: &str, limit: usize) -> Vec<String> {
    let mut left = limit;
    let mut lines = Vec::new();
    for part in text.split(['\n', '\r', '\u{2028}', '\u{2029}']) {
        if left == 0 || lines.len() == 40 {
            break;
        }
        let part = line(part, left);
        if !part.is_empty() {
            left -= part.chars().count().min(left);
            lines.push(part);
        }
    }
    lines
}

/// Whether a letter is a blank that means no more than a space. The no-break space is not one.
fn is_blank(letter: char) -> bool {
    letter != '\u{a0}' && letter.is_whitespace()
}

/// Whether a letter is a control character, changes the direction of text, or is invisible.
fn is_hidden(letter: char) -> bool {
    let is_control = letter.is_control() && !letter.is_whitespace();
    is_control
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_taken_out() {
        for (text, printed) in [
            ("plain", "plain"),
            ("  two\t\n words \u{2003}", "two words"),
            ("pay \u{202e}0001$\u{202c} now", "pay 0001$ now"),
            ("a\u{200b}b\u{feff}c\u{ad}d\u{2066}e", "abcde"),
            ("nul\u{0}bell\u{7}del\u{7f}c1\u{9b}", "nulbelldelc1"),
            ("a\u{a0}b", "a\u{a0}b"),
            ("\u{e0041}\u{fe0f}☃", "☃"),
            (
                "Łódź & Sons \"Ünïcode\" <script> Ωμέγα Київ 東京 =SUM(A1)",
                "Łódź & Sons \"Ünïcode\" <script> Ωμέγα Київ 東京 =SUM(A1)",
            ),
            (" \u{202e} ", ""),
        ] {
            assert_eq!(line(text, 100), printed, "{text:?}");
        }
    }

    #[test]
    fn a_text_ends_at_its_limit() {
        assert_eq!(line("12345", 5), "12345");
        assert_eq!(line("123456", 5), "1234…");
        assert_eq!(line("1234  ", 4), "1234");
        assert_eq!(line(&"x".repeat(1_000_000), 500).chars().count(), 500);
        assert_eq!(lines("a\n\n b \r\nc", 100), ["a", "b", "c"]);
        assert_eq!(lines("abc\ndef\nghi", 5), ["abc", "d…"]);
        assert_eq!(lines(&"x\n".repeat(1000), 5000).len(), 40);
    }
}
