//! Says which kernels this processor gets: `cargo run -p tandem-kernels --example best`.
#![expect(clippy::print_stdout, reason = "an example answers on stdout")]

use tandem_kernels::kernels::Kernels;

fn main() {
    let (kernels, rejected) = Kernels::best();
    println!("{}", kernels.name);
    for wrong in rejected {
        println!("not used: {wrong}");
    }
}
