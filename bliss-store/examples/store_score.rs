//! Scores a request of an address with the model that `store_publish` wrote.
//!
//! ```sh
//! cargo run -p bliss-store --example store_score -- /dev/shm/bliss-example 192.0.2.2
//! ```

use std::error::Error;
use std::time::SystemTime;

use bliss_core::request::Request;
use bliss_store::Client;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, address] = arguments.as_slice() else {
        return Err("usage: score DIRECTORY ADDRESS".into());
    };
    let now = u32::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_secs())?;

    let mut client = Client::open(directory)?;
    let ip = client.names().attribute("ip")?;
    // Maps and checks what is published, so that the first request need not. Call it about once a second.
    let _ = client.maintain();

    let mut request = Request::new();
    request.set_attribute(ip, address.as_str().into());
    // An empty route is the default one.
    let answer = client.score(&request, "", now);
    match answer.outcome {
        Ok(scored) => {
            let model = client.scorer().models().models().get(scored.model).map_or("", |model| model.name());
            println!(
                "score {} by model {model}, bot probability {:.3}",
                scored.score, scored.bot_probability
            );
        }
        // Let such a request pass: no score says nothing about its client.
        Err(reason) => match client.last_error() {
            Some(error) => println!("unscored: {reason}: {error}"),
            None => println!("unscored: {reason}"),
        },
    }
    println!("{:?}", answer.counts);
    Ok(())
}
