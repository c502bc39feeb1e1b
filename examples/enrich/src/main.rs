//! A counter of one's own: it counts messages about a product under the event and the product's category, such as
//! `Product Viewed: shoes`, and internal messages not at all.
//!
//! `LOOKUP_TABLE` is a DynamoDB table with the partition key `product_id` (S) and the attribute `category` (S). It is read
//! once for each process of the function, so a changed category counts from the next start on. `provisioner backfill
//! --recount` counts earlier files under it.

use std::collections::HashMap;

use handler::runtime::{self, Error, Namer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let categories = categories(&runtime::required("LOOKUP_TABLE")?).await?;
    let name = move |message: &serde_json::Value| {
        let properties = &message["properties"];
        if properties["internal"] == true {
            return None;
        }
        // Messages of other types have no event, and are counted under the name of their type.
        let event = message["event"].as_str().or_else(|| message["type"].as_str())?;
        Some(match properties["product_id"].as_str().and_then(|product| categories.get(product)) {
            Some(category) => format!("{event}: {category}"),
            None => event.to_owned(),
        })
    };
    runtime::run(Some(Namer::new(name))).await
}

/// Reads the category of each product.
async fn categories(table: &str) -> Result<HashMap<String, String>, Error> {
    let mut items = runtime::dynamodb()?.scan().table_name(table).into_paginator().items().send();
    let mut categories = HashMap::new();
    while let Some(item) = items.try_next().await? {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        if let (Some(product), Some(category)) = (text("product_id"), text("category")) {
            categories.insert(product, category);
        }
    }
    Ok(categories)
}
