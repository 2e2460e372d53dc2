//! Scores one row: `cargo run -p bliss-catboost --features build --example evaluate -- MODEL.cbm VALUE,VALUE,…`
//!
//! One value per input, in the order of the model's inputs: a number (empty: missing) or the text of a category. Without
//! a row it lists the inputs.

use bliss_catboost::{InputKind, ModelRef, Scratch, category_hash, compile, import};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: score MODEL.cbm [VALUE,VALUE,…]")?;
    let compiled = compile(&import(&std::fs::read(file)?)?)?;
    let model = ModelRef::open(&compiled)?;
    let Some(row) = arguments.next() else {
        model.inputs().for_each(|input| println!("{} {:?}", input.name, input.kind));
        return Ok(());
    };

    let fields: Vec<&str> = row.split(',').collect();
    if fields.len() != model.inputs().len() {
        return Err(format!("expected {} values, found {}", model.inputs().len(), fields.len()).into());
    }
    let mut values = Vec::new();
    for (input, field) in model.inputs().zip(fields) {
        values.push(match input.kind {
            InputKind::Category => f32::from_bits(category_hash(field.as_bytes())),
            InputKind::Float if field.is_empty() => f32::NAN,
            InputKind::Float => field.parse().map_err(|e| format!("{}: {field:?}: {e}", input.name))?,
        });
    }
    let binding: Vec<u32> = (0..values.len() as u32).collect();
    let mut out = vec![0.0; model.output_dimensions()];
    model.raw(&values, &binding, &mut Scratch::for_model(&model), &mut out)?;
    println!("raw {out:?}");
    let classes = if out.len() == 1 { 1..2 } else { 0..out.len() };
    for class in classes {
        println!("probability of class {class}: {}", model.class_probability(&out, class));
    }
    Ok(())
}
