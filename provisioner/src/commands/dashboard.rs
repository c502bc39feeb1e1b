//! `provisioner dashboard`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::{Global, listen};
use crate::aws::Aws;
use crate::counts::period::PeriodArgs;
use crate::dashboard::{AcceptedHost, Dashboard, Password, Settings, Token, View};
use crate::error::Error;
use crate::output::Output;
use crate::output::progress::show_while;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; only this machine reaches 127.0.0.1
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", conflicts_with = "out")]
    listen: SocketAddr,
    /// Accept this host besides addresses and localhost; repeatable
    #[arg(long = "host", value_name = "NAME[:PORT]", conflicts_with = "out")]
    hosts: Vec<AcceptedHost>,
    /// Let in only who opens the printed address, which has a random token
    #[arg(long, conflicts_with = "out")]
    token: bool,
    /// Let in only who gives the name and the password in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "token"])]
    password_file: Option<PathBuf>,
    /// Write the page to one self-contained HTML file and exit
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw this event; repeatable [default: the most frequent ones]
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    #[command(flatten)]
    period: PeriodArgs,
    /// Show the sums of this field, one of rollup.sum: properties.revenue
    #[arg(long, value_name = "FIELD")]
    sum: Option<String>,
    /// Compare with the previous period
    #[arg(long)]
    compare: bool,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let password = args.password_file.as_deref().map(Password::read).transpose()?;
    let dashboard = Dashboard::new(&Aws::connect(&pipeline).await?, &pipeline);
    let mut view = View::asked(&args.events, &args.period, args.compare);
    view.sum = args.sum.clone().unwrap_or_default();
    view.period()?;
    if let Some(file) = &args.out {
        let progress = dashboard.progress();
        show_while(output, &progress, dashboard.write(&view, file)).await?;
        output.print(&format!("Wrote {}.\n", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let shutdown = listen()?;
    let hosts = args.hosts.clone();
    let token = args.token.then(Token::random).transpose()?;
    let query = token.as_ref().map_or_else(|| view.query(), |token| token.query(&view.query()));
    let secret = token.as_ref().map(|_| "token").or(password.as_ref().map(|_| "password"));
    let ready = |address: SocketAddr| output.print(&text(address, &query, secret));
    dashboard.serve(Settings { listen: args.listen, hosts, token, password }, shutdown, ready).await?;
    Ok(ExitCode::SUCCESS)
}

/// Formats the address, and a warning if others on the network can read what they should not.
fn text(address: SocketAddr, query: &str, secret: Option<&str>) -> String {
    let mut out = format!("The dashboard is at http://{address}/?{query}\n");
    match secret {
        _ if address.ip().is_loopback() => {}
        None => out.push_str(
            "Anyone who can reach this address can read all counts: it has no authentication and no encryption. Protect it \
             with a firewall or an authenticating proxy.\n",
        ),
        Some(secret) => out.push_str(&format!(
            "It has no encryption: others on the network may read the {secret} and the counts. Use a proxy with TLS.\n"
        )),
    }
    out + "Press Ctrl-C to stop it.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_is_printed_for_addresses_that_others_can_reach_only() {
        let text = |address: &str, secret| text(address.parse().expect("an address"), "last=24h", secret);
        for secret in [None, Some("token"), Some("password")] {
            for own in ["127.0.0.1:8080", "[::1]:8080"] {
                assert_eq!(text(own, secret).lines().count(), 2, "{}", text(own, secret));
            }
        }
        assert!(text("0.0.0.0:8080", None).contains("no authentication and no encryption"));
        assert!(text("192.0.2.1:8080", Some("password")).contains("may read the password and the counts"));
    }
}
