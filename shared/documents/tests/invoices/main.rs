//! Invoices as PDFs, read back with a PDF reader.

mod pages;
mod sample;
