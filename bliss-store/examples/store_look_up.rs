//! Looks up the features of an address in a directory that `store_publish` wrote.
//!
//! ```sh
//! cargo run -p bliss-store --example store_look_up -- /dev/shm/bliss-example 192.0.2.2
//! ```

use std::error::Error;
use std::time::SystemTime;

use bliss_core::request::Request;
use bliss_store::Client;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, address] = arguments.as_slice() else {
        return Err("usage: look_up DIRECTORY ADDRESS".into());
    };
    let now = u32::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_secs())?;

    // Once per thread: open the directory, and register the attributes that requests will have.
    let mut client = Client::open(directory)?;
    let ip = client.names().attribute("ip")?;

    // Once per request. The request can be reused: `clear` it and set its attributes again.
    let mut request = Request::new();
    request.set_attribute(ip, address.as_str().into());
    let (values, statuses) = client.look_up(&request, now)?;

    // Both slices are the client's own memory. Copied here, to ask the client for names.
    let (values, statuses) = (values.to_vec(), statuses.to_vec());
    let dimensions = client.scorer().dimensions();
    for (index, status) in statuses.iter().enumerate() {
        println!("{}: {}", dimensions.name(index).unwrap_or_default(), status.as_str());
    }
    for (index, value) in values.iter().enumerate() {
        let (dimension, feature) = dimensions.feature_name(index).unwrap_or_default();
        println!("{dimension}.{feature} = {value}");
    }
    Ok(())
}
