//! A twenty-line invoice to the bytes of its PDF, against compressing and hashing a file of that size.

use std::hint::black_box;
use std::io::Write as _;

use documents::invoice_pdf::InvoiceRenderer;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha2::{Digest, Sha256};
use testing::bench;

#[path = "../tests/invoices/sample.rs"]
mod sample;

fn main() {
    let renderer = InvoiceRenderer::new(sample::issuer("letter"), None).expect("a renderer");
    let invoice = sample::invoice(sample::twenty_lines());
    let pdf = renderer.render(&invoice).expect("a PDF");
    let name = format!("twenty lines, {} bytes", pdf.len());
    bench::report(&format!("{name}, set up"), || {
        InvoiceRenderer::new(sample::issuer("letter"), None).expect("a renderer")
    });
    bench::report(&format!("{name}, render"), || {
        renderer.render(black_box(&invoice)).expect("a PDF")
    });
    // What any writer of compressed files has to do with as many bytes.
    bench::report("baseline: deflate and SHA-256 of the bytes", || {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(black_box(&pdf)).expect("memory");
        (encoder.finish().expect("memory"), Sha256::digest(&pdf))
    });
}
