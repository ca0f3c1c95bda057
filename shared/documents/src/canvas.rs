//! Draws pages and writes them, with their typefaces, as the bytes of a PDF.
//!
//! printpdf writes pages, fonts, images and metadata. What it does not let us choose is changed in its objects before
//! they are written: the codes of letters the typeface lacks, the language, and an identifier made from the content
//! instead of at random. Lengths are in hundredths of a point from the top left corner.

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use jiff::Timestamp;
use lopdf::{Dictionary, Object, StringFormat};
use printpdf::{
    Color as Ink, FontId, Op, PaintMode, PdfDocument, PdfFont, PdfFontHandle, PdfPage,
    PdfSaveOptions, Pt, Rect, Rgb, TextItem, TextMatrix, XObject, XObjectId, XObjectTransform,
};
use sha2::{Digest, Sha256};

use super::issuer::Color;
use super::logo::Logo;
use super::typeface::{self, Embedded, Length, Typefaces, Weight};

/// Least effort, for what is compressed for every document: zlib's usual effort takes three times as long to save a
/// tenth of the size.
const EFFORT: u32 = 1;
/// Zlib's usual effort, for what is compressed once for all documents.
const EFFORT_ONCE: u32 = 6;

/// Why the bytes could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The typeface could not be embedded.
    #[error("the typeface failed")]
    Typeface(#[from] typeface::Error),
    /// An instant that a PDF cannot express.
    #[error("the document's date cannot be written: {0}")]
    Date(&'static str),
    /// The objects could not be changed or written.
    #[error("the PDF could not be written")]
    Lopdf(#[from] lopdf::Error),
    /// The objects could not be compressed or written.
    #[error("the PDF could not be written")]
    Io(#[from] std::io::Error),
}

/// The weight, size and colour of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) weight: Weight,
    pub(super) size: Length,
    pub(super) color: Color,
}

/// A page and what is drawn on it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) width: Length,
    pub(super) height: Length,
    /// The shapes, which are drawn below the texts.
    shapes: Vec<Op>,
    texts: Vec<Op>,
    style: Option<Style>,
}

/// The letters that a document uses in each weight.
#[derive(Debug, Default)]
pub(super) struct Letters {
    regular: BTreeSet<char>,
    bold: BTreeSet<char>,
}

/// The metadata of a document.
#[derive(Debug)]
pub(super) struct About<'a> {
    pub(super) title: &'a str,
    pub(super) author: &'a str,
    pub(super) created_at: Timestamp,
}

impl Page {
    /// A page with nothing on it.
    pub(super) fn new(width: Length, height: Length) -> Page {
        Page {
            width,
            height,
            shapes: Vec::new(),
            texts: Vec::new(),
            style: None,
        }
    }

    /// Text whose baseline begins at `(x, y)`.
    pub(super) fn text(
        &mut self,
        letters: &mut Letters,
        x: Length,
        y: Length,
        style: Style,
        text: &str,
    ) {
        if text.is_empty() {
            return;
        }
        let before = self.style.replace(style);
        if before.map(|before| (before.weight, before.size)) != Some((style.weight, style.size)) {
            self.texts.push(Op::SetFont {
                font: PdfFontHandle::External(font_id(style.weight)),
                size: points(style.size),
            });
        }
        if before.map(|before| before.color) != Some(style.color) {
            self.texts.push(Op::SetFillColor {
                col: ink(style.color),
            });
        }
        letters.of(style.weight).extend(text.chars());
        // A section for each text: readers that ignore positions separate texts by it.
        self.texts.push(Op::StartTextSection);
        self.texts.push(Op::SetTextMatrix {
            matrix: TextMatrix::Translate(points(x), points(self.height - y)),
        });
        self.texts.push(Op::ShowText {
            items: vec![TextItem::Text(text.to_owned())],
        });
        self.texts.push(Op::EndTextSection);
    }

    /// A filled rectangle with its upper left corner at `(x, y)`.
    pub(super) fn rectangle(
        &mut self,
        x: Length,
        y: Length,
        width: Length,
        height: Length,
        color: Color,
    ) {
        self.shapes.push(Op::SetFillColor { col: ink(color) });
        self.shapes.push(Op::DrawRectangle {
            rectangle: Rect {
                x: points(x),
                y: points(self.height - y - height),
                width: points(width),
                height: points(height),
                mode: Some(PaintMode::Fill),
                winding_order: None,
            },
        });
    }

    /// The logo with its upper left corner at `(x, y)`.
    pub(super) fn logo(&mut self, x: Length, y: Length, width: Length, height: Length) {
        self.shapes.push(Op::UseXobject {
            id: logo_id(),
            transform: XObjectTransform {
                translate_x: Some(points(x)),
                translate_y: Some(points(self.height - y - height)),
                rotate: None,
                // An image is one unit wide and high.
                scale_x: Some(points(width).0),
                scale_y: Some(points(height).0),
                dpi: None,
                no_auto_scale: true,
            },
        });
    }

    fn into_printpdf(self) -> PdfPage {
        let sheet = Rect {
            x: points(0),
            y: points(0),
            width: points(self.width),
            height: points(self.height),
            mode: None,
            winding_order: None,
        };
        let mut ops = self.shapes;
        ops.extend(self.texts);
        PdfPage {
            media_box: sheet.clone(),
            trim_box: sheet.clone(),
            crop_box: sheet,
            ops,
        }
    }
}

impl Letters {
    fn of(&mut self, weight: Weight) -> &mut BTreeSet<char> {
        match weight {
            Weight::Regular => &mut self.regular,
            Weight::Bold => &mut self.bold,
        }
    }
}

/// Writes pages as the bytes of a PDF. The same pages give the same bytes.
pub(super) fn write(
    about: &About<'_>,
    pages: Vec<Page>,
    letters: &mut Letters,
    typefaces: &Typefaces,
    logo: Option<&Logo>,
) -> Result<Vec<u8>, Error> {
    let mut document = PdfDocument::new(about.title);
    let created_at = printpdf::OffsetDateTime::from_unix_timestamp(about.created_at.as_second())
        .map_err(Error::Date)?;
    let info = &mut document.metadata.info;
    info.creation_date = created_at;
    info.modification_date = created_at;
    info.author = about.author.to_owned();
    info.creator = "DeedPro Billing".to_owned();
    info.producer = "printpdf".to_owned();
    if let Some(logo) = logo {
        let image = XObject::External(logo.image.clone());
        document.resources.xobjects.map.insert(logo_id(), image);
    }
    let mut codes = Vec::new();
    for weight in [Weight::Regular, Weight::Bold] {
        let embedded = typefaces.of(weight).embed(letters.of(weight))?;
        let Embedded {
            font,
            code_to_glyph,
        } = embedded;
        codes.push((font.font_name.clone().unwrap_or_default(), code_to_glyph));
        let fonts = &mut document.resources.fonts.map;
        fonts.insert(font_id(weight), PdfFont::new(font));
    }
    document.pages = pages.into_iter().map(Page::into_printpdf).collect();
    let options = PdfSaveOptions {
        // Compressed below, with less effort.
        optimize: false,
        subset_fonts: false,
        secure: true,
        image_optimization: None,
    };
    let mut objects = document.to_lopdf_document(&options, &mut Vec::new());
    "1.7".clone_into(&mut objects.version);
    put_right(&mut objects)?;
    for (name, code_to_glyph) in codes {
        map_codes(&mut objects, &name, code_to_glyph)?;
    }
    identify(&mut objects);
    compress(&mut objects)?;
    let mut bytes = Vec::new();
    objects.save_to(&mut bytes)?;
    Ok(bytes)
}

/// Names the language, makes viewers show the title, and removes the empty entries that printpdf writes for printing
/// standards.
fn put_right(objects: &mut lopdf::Document) -> Result<(), Error> {
    let catalog = objects.catalog_mut()?;
    catalog.set("Lang", Object::string_literal("en-US"));
    let mut preferences = Dictionary::new();
    preferences.set("DisplayDocTitle", true);
    catalog.set("ViewerPreferences", preferences);
    let info = objects.trailer.get(b"Info")?.as_reference()?;
    let info = objects.get_object_mut(info)?.as_dict_mut()?;
    for empty in [
        "Trapped",
        "GTS_PDFXVersion",
        "Identifier",
        "Keywords",
        "Subject",
    ] {
        info.remove(empty.as_bytes());
    }
    Ok(())
}

/// Maps codes to glyphs. Codes stand for letters: several may share a glyph, above all the glyph for missing letters.
fn map_codes(
    objects: &mut lopdf::Document,
    name: &str,
    code_to_glyph: Vec<u8>,
) -> Result<(), Error> {
    let map = objects.add_object(lopdf::Stream::new(Dictionary::new(), code_to_glyph));
    for object in objects.objects.values_mut() {
        let Ok(font) = object.as_dict_mut() else {
            continue;
        };
        let is_it = font.get(b"DescendantFonts").is_ok()
            && font.get(b"BaseFont").and_then(Object::as_name).ok() == Some(name.as_bytes());
        if is_it {
            let descendants = font.get_mut(b"DescendantFonts")?.as_array_mut()?;
            for descendant in descendants {
                descendant
                    .as_dict_mut()?
                    .set("CIDToGIDMap", Object::Reference(map));
            }
        }
    }
    Ok(())
}

/// Sets an identifier computed from the content. printpdf's identifier differs each time.
fn identify(objects: &mut lopdf::Document) {
    let mut digest = Sha256::new();
    for object in objects.objects.values() {
        match object {
            Object::Stream(stream) => digest.update(&stream.content),
            Object::Dictionary(dictionary) => {
                for value in dictionary
                    .iter()
                    .filter_map(|(_, value)| value.as_str().ok())
                {
                    digest.update(value);
                }
            }
            Object::Null
            | Object::Boolean(_)
            | Object::Integer(_)
            | Object::Real(_)
            | Object::Name(_)
            | Object::String(..)
            | Object::Array(_)
            | Object::Reference(_) => {}
        }
    }
    let digest = digest.finalize();
    let id = Object::String(digest[..16].to_vec(), StringFormat::Hexadecimal);
    objects.trailer.set("ID", vec![id.clone(), id]);
}

fn compress(objects: &mut lopdf::Document) -> Result<(), Error> {
    // One encoder for all streams: allocating its tables takes longer than compressing most of the streams.
    let mut encoder = encoder(EFFORT);
    for object in objects.objects.values_mut() {
        if let Object::Stream(stream) = object
            && !stream.dict.has(b"Filter")
        {
            encoder.write_all(&stream.content)?;
            let compressed = encoder.reset(Vec::new())?;
            if compressed.len() < stream.content.len() {
                stream.dict.set("Filter", "FlateDecode");
                stream.set_content(compressed);
            }
        }
    }
    Ok(())
}

/// Compresses what all documents share, for the filter `FlateDecode`.
pub(super) fn deflate(bytes: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut encoder = encoder(EFFORT_ONCE);
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn encoder(effort: u32) -> ZlibEncoder<Vec<u8>> {
    ZlibEncoder::new(Vec::new(), Compression::new(effort))
}

fn font_id(weight: Weight) -> FontId {
    FontId(
        match weight {
            Weight::Regular => "Regular",
            Weight::Bold => "Bold",
        }
        .to_owned(),
    )
}

fn logo_id() -> XObjectId {
    XObjectId("Logo".to_owned())
}

fn points(length: Length) -> Pt {
    Pt(fraction(length, 100))
}

fn ink(color: Color) -> Ink {
    // Thousandths are finer than the 255 steps and shorter than the exact fraction.
    let part = |part: u8| fraction((i32::from(part) * 1000 + 127) / 255, 1000);
    Ink::Rgb(Rgb {
        r: part(color.red),
        g: part(color.green),
        b: part(color.blue),
        icc_profile: None,
    })
}

#[expect(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    reason = "page geometry: printpdf takes floats; these are the nearest to a short decimal"
)]
fn fraction(numerator: i32, denominator: i32) -> f32 {
    (f64::from(numerator) / f64::from(denominator)) as f32
}
