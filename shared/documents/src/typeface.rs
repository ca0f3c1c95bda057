//! The typeface of documents: its letters, their widths, and the subset that a document embeds.

use std::collections::{BTreeMap, BTreeSet};

use printpdf::{FontMetrics, FontType, ParsedFont, PdfFontMetricsStub};
use subsetter::GlyphRemapper;

/// Hundredths of a point; an inch has 72 points. Whole numbers, so that a page is the same on every machine.
pub(super) type Length = i32;
/// The length of one point.
pub(super) const POINT: Length = 100;

/// The typeface has no letters beyond this one. A table up to here is faster than a map.
const LETTERS: usize = 0x2600;

/// Why the typeface could not be used. Never the document's fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file in the binary is no font.
    #[error("the typeface {0} cannot be read")]
    Unreadable(&'static str),
    /// The subset that a document needs could not be cut out.
    #[error("the typeface {name} cannot be cut down: {reason}")]
    Subset {
        /// The name of the font.
        name: &'static str,
        /// What the subsetter says.
        reason: String,
    },
}

/// The two weights of the typeface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// Both weights after parsing.
#[derive(Debug)]
pub(super) struct Typefaces {
    regular: Typeface,
    bold: Typeface,
}

/// One weight of the typeface.
#[derive(Debug)]
pub(super) struct Typeface {
    name: &'static str,
    program: &'static [u8],
    glyphs: Vec<Glyph>,
    /// The glyph for letters the typeface lacks: a crossed box.
    missing: Glyph,
    metrics: PdfFontMetricsStub,
    ascent: i16,
    descent: i16,
}

/// A glyph. Number 0 is the one for missing letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Glyph {
    number: u16,
    /// In thousandths of the font size.
    advance: u16,
}

/// The subset of a weight that a document embeds.
#[derive(Debug)]
pub(super) struct Embedded {
    /// Uses the codes of this document, which number its letters. Each letter has its own code, also one the typeface
    /// lacks, so that all of them can be searched and copied.
    pub(super) font: ParsedFont,
    /// The glyph of each code, two bytes each: the `CIDToGIDMap`.
    pub(super) code_to_glyph: Vec<u8>,
}

impl Typefaces {
    /// Parses both weights. Takes a millisecond or two.
    pub(super) fn parse() -> Result<Typefaces, Error> {
        Ok(Typefaces {
            regular: Typeface::parse(
                "Roboto-Regular",
                include_bytes!("../assets/Roboto-Regular.ttf"),
            )?,
            bold: Typeface::parse("Roboto-Bold", include_bytes!("../assets/Roboto-Bold.ttf"))?,
        })
    }

    /// The typeface in one weight.
    pub(super) fn of(&self, weight: Weight) -> &Typeface {
        match weight {
            Weight::Regular => &self.regular,
            Weight::Bold => &self.bold,
        }
    }

    /// The width of a text at a font size.
    pub(super) fn width(&self, text: &str, weight: Weight, size: Length) -> Length {
        let typeface = self.of(weight);
        let thousandths: i64 = text
            .chars()
            .map(|letter| i64::from(typeface.glyph(letter).advance))
            .sum();
        Length::try_from(thousandths * i64::from(size) / 1000).unwrap_or(Length::MAX)
    }

    /// Breaks a text into lines of at most `width`, between words where possible, otherwise within them. Never empty.
    pub(super) fn wrap(
        &self,
        text: &str,
        weight: Weight,
        size: Length,
        width: Length,
    ) -> Vec<String> {
        let space = self.width(" ", weight, size);
        let mut lines = Vec::new();
        let mut line = String::new();
        let mut line_width = 0;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let word_width = self.width(word, weight, size);
            if !line.is_empty() && line_width + space + word_width <= width {
                line.push(' ');
                line.push_str(word);
                line_width += space + word_width;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            if word_width <= width {
                line.push_str(word);
                line_width = word_width;
                continue;
            }
            line_width = 0;
            for letter in word.chars() {
                let letter_width = self.width(letter.encode_utf8(&mut [0; 4]), weight, size);
                if !line.is_empty() && line_width + letter_width > width {
                    lines.push(std::mem::take(&mut line));
                    line_width = 0;
                }
                line.push(letter);
                line_width += letter_width;
            }
        }
        if !line.is_empty() || lines.is_empty() {
            lines.push(line);
        }
        lines
    }
}

impl Typeface {
    fn parse(name: &'static str, program: &'static [u8]) -> Result<Typeface, Error> {
        let parsed = ParsedFont::from_bytes(program, 0, &mut Vec::new());
        parsed
            .and_then(|parsed| Typeface::of_parsed(name, program, &parsed))
            .ok_or(Error::Unreadable(name))
    }

    fn of_parsed(
        name: &'static str,
        program: &'static [u8],
        parsed: &ParsedFont,
    ) -> Option<Typeface> {
        let units_per_em = u32::from(parsed.units_per_em);
        // Rounded down like the widths in the document, so that text aligned to the right ends where it should.
        let advance = |number: u16| {
            let units = parsed.get_glyph_width(number)?;
            u16::try_from((u32::from(units) * 1000).checked_div(units_per_em)?).ok()
        };
        let mut glyphs = vec![Glyph::default(); LETTERS];
        for (letter, number) in &parsed.codepoint_to_glyph {
            if let Some(glyph) = glyphs.get_mut(usize::try_from(*letter).ok()?) {
                *glyph = Glyph {
                    number: *number,
                    advance: advance(*number)?,
                };
            }
        }
        let signed = i32::try_from(units_per_em).ok()?;
        let scaled = |units: i16| i16::try_from(i32::from(units) * 1000 / signed).ok();
        let found = &parsed.pdf_font_metrics;
        Some(Typeface {
            name,
            program,
            glyphs,
            missing: Glyph {
                number: 0,
                advance: advance(0)?,
            },
            metrics: PdfFontMetricsStub {
                units_per_em: 1000,
                x_min: scaled(found.x_min)?,
                y_min: scaled(found.y_min)?,
                x_max: scaled(found.x_max)?,
                y_max: scaled(found.y_max)?,
                caret_slope_rise: found.caret_slope_rise,
                caret_slope_run: found.caret_slope_run,
                us_weight_class: found.us_weight_class,
            },
            ascent: scaled(parsed.font_metrics.ascent)?,
            descent: scaled(parsed.font_metrics.descent)?,
        })
    }

    fn glyph(&self, letter: char) -> Glyph {
        let glyph = usize::try_from(u32::from(letter))
            .ok()
            .and_then(|letter| self.glyphs.get(letter))
            .filter(|glyph| glyph.number != 0);
        glyph.copied().unwrap_or(self.missing)
    }

    /// Whether the typeface has a glyph for the letter.
    #[cfg(test)]
    fn has(&self, letter: char) -> bool {
        self.glyph(letter).number != 0
    }

    /// Cuts out the subset that these letters need.
    pub(super) fn embed(&self, letters: &BTreeSet<char>) -> Result<Embedded, Error> {
        let mut glyphs = GlyphRemapper::new();
        let mut codes = BTreeMap::new();
        let mut widths = BTreeMap::from([(0, self.missing.advance)]);
        let mut code_to_glyph = vec![0, 0];
        // After 65,535 different letters, the others get the code of the missing letter.
        for (code, letter) in (1..=u16::MAX).zip(letters) {
            let glyph = self.glyph(*letter);
            codes.insert(u32::from(*letter), code);
            widths.insert(code, glyph.advance);
            code_to_glyph.extend(glyphs.remap(glyph.number).to_be_bytes());
        }
        let program =
            subsetter::subset(self.program, 0, &glyphs).map_err(|error| Error::Subset {
                name: self.name,
                reason: error.to_string(),
            })?;
        Ok(Embedded {
            font: ParsedFont {
                original_bytes: program,
                font_index: 0,
                font_name: Some(format!("{}+{}", tag(letters), self.name)),
                codepoint_to_glyph: codes,
                glyph_widths: widths,
                units_per_em: 1000,
                font_metrics: FontMetrics {
                    ascent: self.ascent,
                    descent: self.descent,
                },
                font_type: FontType::TrueType,
                pdf_font_metrics: self.metrics.clone(),
            },
            code_to_glyph,
        })
    }
}

/// Six capitals that tell this subset from others (ISO 32000-1, 9.6.4): a checksum (FNV-1a) of its letters.
fn tag(letters: &BTreeSet<char>) -> String {
    let mut sum = letters.iter().fold(0x811c_9dc5_u32, |sum, letter| {
        (sum ^ u32::from(*letter)).wrapping_mul(0x0100_0193)
    });
    let mut tag = String::with_capacity(6);
    for _ in 0..6 {
        let capital = u8::try_from(sum % 26).unwrap_or_default();
        tag.push(char::from(b'A' + capital));
        sum /= 26;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latin_greek_and_cyrillic_are_there_and_figures_are_of_one_width() {
        let typefaces = Typefaces::parse().unwrap();
        for weight in [Weight::Regular, Weight::Bold] {
            let typeface = typefaces.of(weight);
            for letter in "Łódź “Ünïcode” Ωμέγα Київ €£¥₹₴ ñßøåþ – …".chars()
            {
                assert!(typeface.has(letter), "{letter}");
            }
            assert!(!typeface.has('東') && !typeface.has('🏠') && !typeface.has('א'));
            let widths: BTreeSet<u16> = ('0'..='9')
                .map(|figure| typeface.glyph(figure).advance)
                .collect();
            assert_eq!(widths.len(), 1);
            assert!(typeface.missing.advance > 0);
        }
    }

    #[test]
    fn lines_keep_within_their_width_and_lose_nothing() {
        let typefaces = Typefaces::parse().unwrap();
        let (size, width) = (9 * POINT, 120 * POINT);
        let long = "x".repeat(300);
        for text in [
            "",
            "one",
            "the quick brown fox jumps over the lazy dog and runs on and on",
            &format!("before {long} after"),
            &"東京".repeat(50),
        ] {
            let lines = typefaces.wrap(text, Weight::Regular, size, width);
            assert!(!lines.is_empty());
            for line in &lines {
                assert!(
                    typefaces.width(line, Weight::Regular, size) <= width,
                    "{line}"
                );
            }
            let letters = |text: &str| text.chars().filter(|letter| *letter != ' ').count();
            assert_eq!(letters(&lines.concat()), letters(text));
        }
    }

    #[test]
    fn a_document_carries_only_what_it_uses() {
        let typefaces = Typefaces::parse().unwrap();
        let letters: BTreeSet<char> = "Invoice 東京".chars().collect();
        let embedded = typefaces.of(Weight::Regular).embed(&letters).unwrap();
        assert!(embedded.font.original_bytes.len() < 4_000);
        assert_eq!(embedded.code_to_glyph.len(), 2 * (letters.len() + 1));
        let code = |letter: char| embedded.font.codepoint_to_glyph[&u32::from(letter)];
        assert_ne!(code('東'), code('京'), "each can be copied");
        let glyph = |letter: char| {
            let place = usize::from(code(letter)) * 2;
            embedded.code_to_glyph[place..place + 2].to_owned()
        };
        assert_eq!((glyph('東'), glyph('京')), (vec![0, 0], vec![0, 0]));
        assert_ne!(glyph('I'), [0, 0]);
    }
}
