//! The logo: a PNG or JPEG in the form a PDF embeds.

use std::collections::BTreeMap;
use std::io::Cursor;

use printpdf::{DictItem, ExternalStream, ExternalXObject};

use super::canvas::deflate;

/// The largest file, in bytes. Every invoice contains it.
const FILE_BYTES: usize = 256 * 1024;
/// The largest width and height.
const SIDE_PIXELS: u32 = 2_000;

/// Why a file cannot be the logo.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither PNG nor JPEG.
    #[error("a logo is a PNG or a JPEG")]
    OtherFormat,
    /// Larger than every invoice can carry.
    #[error("a logo has at most 256 KiB, and 2,000 pixels a side")]
    TooLarge,
    /// The PNG is broken.
    #[error("the logo's PNG cannot be read")]
    Png(#[from] png::DecodingError),
    /// The JPEG is broken, or of a kind that a PDF cannot embed.
    #[error("the logo's JPEG cannot be read")]
    Jpeg,
    /// The pixels could not be compressed.
    #[error("the logo could not be compressed")]
    Io(#[from] std::io::Error),
}

/// A logo that has been read once.
#[derive(Debug, Clone)]
pub(super) struct Logo {
    pub(super) width_pixels: u32,
    pub(super) height_pixels: u32,
    pub(super) image: ExternalXObject,
}

impl Logo {
    /// Reads a PNG or JPEG file.
    pub(super) fn parse(file: &[u8]) -> Result<Logo, Error> {
        if file.len() > FILE_BYTES {
            return Err(Error::TooLarge);
        }
        if file.starts_with(b"\x89PNG\r\n\x1a\n") {
            Logo::of_png(file)
        } else if file.starts_with(b"\xff\xd8\xff") {
            Logo::of_jpeg(file)
        } else {
            Err(Error::OtherFormat)
        }
    }

    /// Decodes a PNG, because a PDF stores transparency apart from colour.
    fn of_png(file: &[u8]) -> Result<Logo, Error> {
        let mut decoder = png::Decoder::new(Cursor::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let (width, height) = (reader.info().width, reader.info().height);
        check_sides(width, height)?;
        let mut pixels = vec![0; reader.output_buffer_size().ok_or(Error::TooLarge)?];
        let frame = reader.next_frame(&mut pixels)?;
        pixels.truncate(frame.buffer_size());
        let (color_space, samples, has_alpha) = match frame.color_type {
            png::ColorType::Grayscale => ("DeviceGray", 1, false),
            png::ColorType::GrayscaleAlpha => ("DeviceGray", 2, true),
            // The decoder has resolved the palette.
            png::ColorType::Rgb | png::ColorType::Indexed => ("DeviceRGB", 3, false),
            png::ColorType::Rgba => ("DeviceRGB", 4, true),
        };
        let mut more = BTreeMap::new();
        if has_alpha {
            let alpha: Vec<u8> = pixels
                .chunks_exact(samples)
                .filter_map(|pixel| pixel.last().copied())
                .collect();
            pixels = pixels
                .chunks_exact(samples)
                .flat_map(|pixel| &pixel[..samples - 1])
                .copied()
                .collect();
            let mask = ExternalStream {
                dict: image(width, height, "DeviceGray", "FlateDecode"),
                content: deflate(&alpha)?,
                compress: false,
            };
            more.insert("SMask".to_owned(), DictItem::Stream { stream: mask });
        }
        let mut dict = image(width, height, color_space, "FlateDecode");
        dict.extend(more);
        Ok(Logo::new(width, height, dict, deflate(&pixels)?))
    }

    /// Keeps a JPEG as it is: a PDF can embed it.
    fn of_jpeg(file: &[u8]) -> Result<Logo, Error> {
        let (width, height, components) = jpeg_frame(file).ok_or(Error::Jpeg)?;
        check_sides(width, height)?;
        let color_space = match components {
            1 => "DeviceGray",
            3 => "DeviceRGB",
            // Such files do not say whether their colours are inverted.
            _ => return Err(Error::Jpeg),
        };
        let dict = image(width, height, color_space, "DCTDecode");
        Ok(Logo::new(width, height, dict, file.to_vec()))
    }

    fn new(
        width_pixels: u32,
        height_pixels: u32,
        dict: BTreeMap<String, DictItem>,
        content: Vec<u8>,
    ) -> Logo {
        Logo {
            width_pixels,
            height_pixels,
            image: ExternalXObject {
                stream: ExternalStream {
                    dict,
                    content,
                    compress: false,
                },
                width: None,
                height: None,
                dpi: None,
            },
        }
    }
}

fn check_sides(width: u32, height: u32) -> Result<(), Error> {
    if (1..=SIDE_PIXELS).contains(&width) && (1..=SIDE_PIXELS).contains(&height) {
        Ok(())
    } else {
        Err(Error::TooLarge)
    }
}

fn image(width: u32, height: u32, color_space: &str, filter: &str) -> BTreeMap<String, DictItem> {
    let name = |name: &str| DictItem::Name(name.as_bytes().to_vec());
    BTreeMap::from([
        ("Type".to_owned(), name("XObject")),
        ("Subtype".to_owned(), name("Image")),
        ("Width".to_owned(), DictItem::Int(i64::from(width))),
        ("Height".to_owned(), DictItem::Int(i64::from(height))),
        ("ColorSpace".to_owned(), name(color_space)),
        ("BitsPerComponent".to_owned(), DictItem::Int(8)),
        ("Filter".to_owned(), name(filter)),
    ])
}

/// Width, height and number of components from the frame header (ITU T.81, B.2.2).
fn jpeg_frame(file: &[u8]) -> Option<(u32, u32, u8)> {
    let mut at = 2;
    loop {
        let (marker, length) = match file.get(at..at + 4)? {
            [0xff, 0xff, ..] => {
                // Fill bytes.
                at += 1;
                continue;
            }
            [0xff, marker, high, low] => (*marker, u16::from_be_bytes([*high, *low])),
            _ => return None,
        };
        // Baseline, extended and progressive frames of eight bits.
        if matches!(marker, 0xc0..=0xc2) {
            return match file.get(at + 4..at + 10)? {
                [8, h1, h2, w1, w2, components] => Some((
                    u32::from(u16::from_be_bytes([*w1, *w2])),
                    u32::from(u16::from_be_bytes([*h1, *h2])),
                    *components,
                )),
                _ => None,
            };
        }
        if marker == 0xda {
            return None;
        }
        at += 2 + usize::from(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(color: png::ColorType, pixels: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(pixels).unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn a_png_keeps_its_transparency_apart() {
        let opaque = Logo::parse(&png_of(png::ColorType::Rgb, &[1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!((opaque.width_pixels, opaque.height_pixels), (2, 1));
        assert!(!opaque.image.stream.dict.contains_key("SMask"));
        let clear = png_of(png::ColorType::Rgba, &[1, 2, 3, 0, 4, 5, 6, 255]);
        let clear = Logo::parse(&clear).unwrap();
        assert_eq!(clear.image.stream.content, opaque.image.stream.content);
        assert!(clear.image.stream.dict.contains_key("SMask"));
    }

    #[test]
    fn a_jpeg_is_kept_as_it_stands() {
        let mut file =
            b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2\x00\x0b\x08\x00\x05\x00\x07\x03".to_vec();
        file.extend([0; 9]);
        let logo = Logo::parse(&file).unwrap();
        assert_eq!((logo.width_pixels, logo.height_pixels), (7, 5));
        assert_eq!(logo.image.stream.content, file);
        file[18] = 4;
        assert!(matches!(Logo::parse(&file), Err(Error::Jpeg)));
    }

    #[test]
    fn what_is_no_logo_is_refused() {
        for file in [
            b"GIF89a".as_slice(),
            b"",
            b"\x89PNG\r\n\x1a\nrest",
            b"\xff\xd8\xff\xe0\x00",
            b"\xff\xd8\xff\xda\x00\x02",
            &vec![0; FILE_BYTES + 1],
        ] {
            assert!(Logo::parse(file).is_err(), "{} bytes", file.len());
        }
    }
}
