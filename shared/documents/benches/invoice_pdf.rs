//! A twenty-line invoice to the bytes of its PDF, against compressing and hashing a file of that size.

use std::hint::black_box;
use std::io::Write as _;

use criterion::{Criterion, criterion_group, criterion_main};
use documents::invoice_pdf::InvoiceRenderer;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha2::{Digest, Sha256};

#[path = "../tests/invoices/sample.rs"]
mod sample;

fn invoice_pdf(criterion: &mut Criterion) {
    let renderer = InvoiceRenderer::new(sample::issuer("letter"), None).expect("a renderer");
    let invoice = sample::invoice(sample::twenty_lines());
    let pdf = renderer.render(&invoice).expect("a PDF");
    let mut group = criterion.benchmark_group(format!("twenty lines, {} bytes", pdf.len()));
    group.bench_function("set up", |bencher| {
        bencher.iter(|| InvoiceRenderer::new(sample::issuer("letter"), None).expect("a renderer"));
    });
    group.bench_function("render", |bencher| {
        bencher.iter(|| renderer.render(black_box(&invoice)).expect("a PDF"));
    });
    // What any writer of compressed files has to do with as many bytes.
    group.bench_function("baseline: deflate and SHA-256 of the bytes", |bencher| {
        bencher.iter(|| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(black_box(&pdf)).expect("memory");
            (encoder.finish().expect("memory"), Sha256::digest(&pdf))
        });
    });
    group.finish();
}

criterion_group!(benches, invoice_pdf);
criterion_main!(benches);
