//! Writes a location database, format 1, as Debian's `libloc-database` has it.

/// A database of networks: address and bits, country, number and name of the system. Longer networks lie in shorter ones.
pub(crate) fn database(networks: &[(u128, u8, &str, u32, &str)]) -> Vec<u8> {
    const NONE: u32 = u32::MAX;
    let mut nodes: Vec<[u32; 3]> = vec![[0, 0, NONE]];
    let (mut systems, mut held, mut texts) = (Vec::new(), Vec::new(), vec![0_u8]);
    for (index, (address, bits, country, asn, name)) in networks.iter().enumerate() {
        let mut node = 0;
        for depth in 0..*bits {
            let side = (address >> (127 - depth) & 1) as usize;
            if nodes[node][side] == 0 {
                nodes.push([0, 0, NONE]);
                nodes[node][side] = (nodes.len() - 1) as u32;
            }
            node = nodes[node][side] as usize;
        }
        nodes[node][2] = index as u32;
        systems.extend([*asn, texts.len() as u32].map(u32::to_be_bytes).as_flattened());
        texts.extend(name.bytes().chain([0]));
        held.extend(country.bytes().chain([0; 2]).take(2).chain([0; 2]));
        held.extend(asn.to_be_bytes().into_iter().chain([0; 4]));
    }
    let tree: Vec<u8> = nodes.iter().flatten().flat_map(|word| word.to_be_bytes()).collect();
    let mut bytes = b"LOCDBXX\x01".to_vec();
    bytes.extend(1_600_000_000_u64.to_be_bytes());
    bytes.extend([0; 12]);
    let mut at = 4096_u32;
    for part in [&systems, &held, &tree, &Vec::new(), &texts] {
        bytes.extend([at, part.len() as u32].map(u32::to_be_bytes).as_flattened());
        at += part.len() as u32;
    }
    bytes.resize(4096, 0);
    bytes.extend([systems, held, tree, texts].concat());
    bytes
}

/// One with networks of both families.
pub(crate) fn example() -> Vec<u8> {
    let v4 = |address: [u8; 4]| 0xffff_u128 << 32 | u128::from(u32::from_be_bytes(address));
    database(&[
        (v4([10, 0, 0, 0]), 104, "DE", 64497, "Home Telecom"),
        (v4([10, 1, 0, 0]), 112, "", 64496, "Example Hosting Ltd"),
        (0x2001_0db8 << 96, 32, "US", 64496, "Example Hosting Ltd"),
    ])
}
