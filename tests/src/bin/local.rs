//! `make local`: runs the local AWS in the foreground.

use anyhow::Result;
use clap::Parser;
use tests::local_aws::LocalAws;

/// Runs the local AWS, with IAM enforced, until it is stopped with Ctrl-C
#[derive(Parser)]
struct Args {
    /// Port to listen on
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// Behave as strictly as AWS's documentation
    #[arg(long)]
    strict: bool,
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn main() -> Result<()> {
    let args = Args::parse();
    LocalAws::run(args.port, args.strict, |aws| {
        println!("The local AWS is running; stop it with Ctrl-C. In another shell:\n");
        for (name, value) in aws.variables("000000000000") {
            println!("export {name}={value}");
        }
        println!("export AWS_DEFAULT_REGION=us-east-1");
        println!("export PIPELINE_ENV=local\n");
    })
}
