mod audit;
mod exchange;
mod producers;
fn main() {}
