//! The pages of AWS's console, by resource. Each is `None` in a partition whose console has another address.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Account;

/// Characters that have no meaning in a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Account {
    /// Returns the address of a page of a service, by the service's path and the page within it.
    fn console(&self, service: &str, page: &str) -> Option<String> {
        let domain = match self.partition.as_str() {
            "aws" => "console.aws.amazon.com",
            "aws-cn" => "console.amazonaws.cn",
            "aws-us-gov" => "console.amazonaws-us-gov.com",
            _ => return None,
        };
        Some(format!("https://{0}.{domain}/{service}?region={0}{page}", self.region))
    }

    /// Returns the page of a bucket.
    pub(crate) fn bucket_page(&self, name: &str) -> Option<String> {
        self.console(&format!("s3/buckets/{name}"), "")
    }

    /// Returns the page of a table.
    pub(crate) fn table_page(&self, name: &str) -> Option<String> {
        self.console("dynamodbv2/home", &format!("#table?name={name}"))
    }

    /// Returns the page of a function.
    pub(crate) fn function_page(&self, name: &str) -> Option<String> {
        self.console("lambda/home", &format!("#/functions/{name}"))
    }

    /// Returns the page of a function's metrics.
    pub(crate) fn function_metrics_page(&self, name: &str) -> Option<String> {
        self.function_page(name).map(|page| page + "?tab=monitoring")
    }

    /// Returns the page of a log group.
    pub(crate) fn log_group_page(&self, name: &str) -> Option<String> {
        // The page decodes the name twice, and takes `$` for `%`.
        let name = name.replace('/', "$252F");
        self.console("cloudwatch/home", &format!("#logsV2:log-groups/log-group/{name}"))
    }

    /// Returns the page of a queue.
    pub(crate) fn queue_page(&self, name: &str) -> Option<String> {
        let url = self.queue_url(name);
        self.console("sqs/v3/home", &format!("#/queues/{}", utf8_percent_encode(&url, PLAIN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_the_console_of_the_partition() {
        let bucket = |partition: &str, region: &str| {
            let (partition, region, id) = (partition.to_owned(), region.to_owned(), "123456789012".to_owned());
            Account { partition, region, id, caller: String::new() }.bucket_page("acme")
        };
        for (partition, region, domain) in [
            ("aws", "eu-central-1", "console.aws.amazon.com"),
            ("aws-cn", "cn-north-1", "console.amazonaws.cn"),
            ("aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"),
        ] {
            let page = format!("https://{region}.{domain}/s3/buckets/acme?region={region}");
            assert_eq!(bucket(partition, region), Some(page));
        }
        assert_eq!(bucket("aws-iso", "us-iso-east-1"), None);
    }
}
