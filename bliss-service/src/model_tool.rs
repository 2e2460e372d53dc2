//! `blissctl model`: what is in a model, and what it answers for rows in files.
//!
//! Rows are given as CatBoost's tools have them: numbers as row-major little-endian `f32`,
//! categories as lines of tab-separated strings; the pool's columns are all numbers, then all categories. Answers are
//! little-endian `f64`, [`output_dimensions`](ModelRef::output_dimensions) per row, from the evaluator that serves.

use crate::model_files::{Prepared, prepare};
use crate::output;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bliss_catboost::ir::Model;
use bliss_catboost::{
    AnswerKind, BotClass, BotOptions, Input, InputKind, InstructionSet, ModelRef, Scratch, category_hash,
    compile, import,
};

/// Commands for models.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ModelCommand {
    /// Show what is in a CatBoost file: inputs, trees, sizes, or why it cannot be used.
    Inspect {
        /// A .cbm file, or CatBoost's JSON export.
        file: PathBuf,
        /// Which class is that of bots.
        #[command(flatten)]
        bot: BotArgs,
    },
    /// Compile a CatBoost file to the form in which models are published.
    Compile {
        /// A .cbm file, or CatBoost's JSON export.
        file: PathBuf,
        /// Which class is that of bots.
        #[command(flatten)]
        bot: BotArgs,
        /// Where to write the compiled model; without it, only its size is printed.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Write a model's raw answers (CatBoost's RawFormulaVal) for rows, or the probabilities of a bot.
    Eval {
        /// A .cbm file, or CatBoost's JSON export.
        file: PathBuf,
        /// The rows.
        #[command(flatten)]
        rows: RowFiles,
        /// Where to write the answers: little-endian f64, rows x output dimensions.
        #[arg(long)]
        out: PathBuf,
        /// Write the probability of a bot instead, one per row: what scores are made of.
        #[arg(long)]
        probability: bool,
        /// Which class is that of bots.
        #[command(flatten)]
        bot: BotArgs,
        /// The instructions to use; by default the fastest of this processor.
        #[arg(long)]
        path: Option<InstructionSet>,
    },
    /// Compare the raw answers of two models on the same rows.
    Diff {
        /// A .cbm file, or CatBoost's JSON export.
        a: PathBuf,
        /// Another one with as many output dimensions.
        b: PathBuf,
        /// The rows.
        #[command(flatten)]
        rows: RowFiles,
    },
}

/// Files of rows.
#[derive(Clone, Debug, clap::Args)]
pub struct RowFiles {
    /// Numbers: row-major little-endian f32.
    #[arg(long)]
    floats: Option<PathBuf>,
    /// Categories: a line per row, separated by tabs.
    #[arg(long)]
    cats: Option<PathBuf>,
}

/// How a model's answers are read: `bot_class` and `answer` of a `[[model]]` in the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BotArgs {
    /// The class of bots: its name or its index; a name that is a number stands in double quotes. Needed unless the
    /// classes are 0 and 1, in that order.
    #[arg(long, value_name = "CLASS")]
    bot_class: Option<BotClass>,
    /// What the answer is where the loss makes it no probability: "probability" or "log_odds".
    #[arg(long, value_name = "KIND")]
    answer: Option<AnswerKind>,
}

impl From<&BotArgs> for BotOptions {
    fn from(arguments: &BotArgs) -> Self {
        Self { class: arguments.bot_class.clone(), answer: arguments.answer }
    }
}

/// Runs the command.
///
/// # Errors
/// Names the file and says what is wrong with it.
pub fn run(command: &ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Inspect { file, bot } => {
            output::print(format_args!("{}", Loaded::read(file)?.describe(&bot.into())?))?;
        }
        ModelCommand::Compile { file, bot, out } => {
            let loaded = Loaded::read_for_bots(file, bot)?;
            if let Some(out) = out {
                std::fs::write(out, loaded.compiled.as_slice())
                    .with_context(|| format!("{}: cannot be written", out.display()))?;
            }
            output::print(format_args!(
                "{}: {} bytes compiled; class {} is that of bots\n",
                file.display(),
                loaded.compiled.len(),
                loaded.bot_class
            ))?;
        }
        ModelCommand::Eval { file, rows, out, probability, bot, path } => {
            let loaded = if *probability { Loaded::read_for_bots(file, bot)? } else { Loaded::read(file)? };
            let mut answers = loaded.evaluate(rows, *path)?;
            let mut dimensions = loaded.open()?.output_dimensions();
            if *probability {
                let model = loaded.open()?;
                let class = usize::try_from(loaded.bot_class)?;
                answers = answers.chunks(dimensions).map(|raw| model.class_probability(raw, class)).collect();
                dimensions = 1;
            }
            let bytes: Vec<u8> = answers.iter().flat_map(|a| a.to_le_bytes()).collect();
            std::fs::write(out, bytes).with_context(|| format!("{}: cannot be written", out.display()))?;
            let rows = answers.len() / dimensions;
            output::print(format_args!("{rows} rows x {dimensions} answers to {}\n", out.display()))?;
        }
        ModelCommand::Diff { a, b, rows } => {
            let [left, right] = [Loaded::read(a)?, Loaded::read(b)?];
            let dimensions = [left.open()?.output_dimensions(), right.open()?.output_dimensions()];
            ensure!(
                dimensions[0] == dimensions[1],
                "{} gives {} answers per row, {} gives {}; they cannot be compared",
                a.display(),
                dimensions[0],
                b.display(),
                dimensions[1]
            );
            let answers = [left.evaluate(rows, None)?, right.evaluate(rows, None)?];
            output::print(format_args!("{}\n", Difference::of(&answers[0], &answers[1])))?;
        }
    }
    Ok(())
}

/// A model, as read and as compiled.
struct Loaded {
    file: PathBuf,
    model: Model,
    compiled: rkyv::util::AlignedVec<64>,
    /// The class of bots; only [`read_for_bots`](Self::read_for_bots) decides it.
    bot_class: u32,
}

impl Loaded {
    fn bytes(file: &Path) -> Result<Vec<u8>> {
        std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))
    }

    /// Reads a model for its raw answers, whatever they mean.
    fn read(file: &Path) -> Result<Self> {
        let at = || file.display().to_string();
        let model = import(&Self::bytes(file)?).with_context(at)?;
        let compiled = compile(&model).with_context(at)?;
        Ok(Self { file: file.to_owned(), model, compiled, bot_class: 1 })
    }

    /// Reads a model as the daemon does.
    fn read_for_bots(file: &Path, bot: &BotArgs) -> Result<Self> {
        let prepared =
            prepare(&Self::bytes(file)?, &bot.into(), true).with_context(|| file.display().to_string())?;
        let Prepared { model, bot_class, compiled } = prepared;
        Ok(Self { file: file.to_owned(), model, compiled, bot_class })
    }

    fn open(&self) -> Result<ModelRef<'_>> {
        ModelRef::open(&self.compiled).with_context(|| self.file.display().to_string())
    }

    fn describe(&self, bot: &BotOptions) -> Result<String> {
        use std::fmt::Write as _;
        let model = self.open()?;
        let mut text = String::new();
        let shape = if model.is_oblivious() { "oblivious" } else { "of any shape" };
        writeln!(text, "file              {}", self.file.display())?;
        writeln!(text, "guid              {}", if model.guid().is_empty() { "none" } else { model.guid() })?;
        writeln!(text, "trees             {}, {shape}, depth {} at most", model.trees(), model.depth())?;
        writeln!(text, "leaf values       {}", model.leaf_values())?;
        writeln!(text, "answers per row   {}", model.output_dimensions())?;
        let has_weights = !self.model.leaf_weights.is_empty();
        writeln!(
            text,
            "explanations      {}",
            if has_weights { "possible" } else { "not possible: no leaf weights" }
        )?;
        let loss = if self.model.loss.is_empty() { "none" } else { &self.model.loss };
        writeln!(text, "loss_function     {loss}")?;
        let classes: Vec<_> = model.class_names().collect();
        writeln!(
            text,
            "classes           {}",
            if classes.is_empty() { "none".into() } else { classes.join(", ") }
        )?;
        match self.model.clone().select_bot(bot) {
            Ok(class) => {
                let name = classes.get(usize::try_from(class)?).map(|name| format!(" ({name:?})"));
                writeln!(text, "bots              class {class}{}", name.unwrap_or_default())?;
            }
            Err(error) => writeln!(text, "bots              not known: {error}")?,
        }
        writeln!(
            text,
            "columns           {} numbers, {} categories",
            self.float_columns(),
            self.cat_columns()
        )?;
        writeln!(text, "ctr tables        {}", self.model.ctr_tables.len())?;
        writeln!(
            text,
            "compiled          {} bytes, evaluated with {} here",
            model.size_bytes(),
            model.instruction_set()
        )?;
        writeln!(text, "inputs            {} of the columns are tested:", model.inputs().len())?;
        for input in model.inputs() {
            let kind = match input.kind {
                InputKind::Float => "number",
                InputKind::Category => "category",
            };
            writeln!(text, "  {kind:<9} {}", input.name)?;
        }
        Ok(text)
    }

    /// Numeric columns of the training data; those after the last one that the file names are unknown.
    fn float_columns(&self) -> usize {
        self.model.floats.iter().map(|f| f.index + 1).max().unwrap_or(0)
    }

    fn cat_columns(&self) -> usize {
        self.model.cats.iter().map(|c| c.index + 1).max().unwrap_or(0)
    }

    /// The column of each input: numbers first, then categories.
    fn binding(&self, model: &ModelRef<'_>) -> Result<Vec<u32>> {
        let float_columns = self.float_columns();
        let named = |name: &str, own: &str, prefix: &str, index: usize| {
            if own.is_empty() { name == format!("{prefix}{index}") } else { name == own }
        };
        let column = |input: Input<'_>| {
            let found = match input.kind {
                InputKind::Float => {
                    let mut floats = self.model.floats.iter();
                    floats.find(|f| named(input.name, &f.name, "float_", f.index)).map(|f| f.index)
                }
                InputKind::Category => {
                    let mut cats = self.model.cats.iter();
                    let found = cats.find(|c| named(input.name, &c.name, "cat_", c.index));
                    found.map(|c| float_columns + c.index)
                }
            };
            let at = || format!("{}: input {} has no column", self.file.display(), input.name);
            u32::try_from(found.with_context(at)?).with_context(at)
        };
        model.inputs().map(column).collect()
    }

    fn evaluate(&self, files: &RowFiles, path: Option<InstructionSet>) -> Result<Vec<f64>> {
        let model = self.open()?;
        let model = match path {
            Some(path) => model.with_instruction_set(path)?,
            None => model,
        };
        let (float_columns, cat_columns) = (self.float_columns(), self.cat_columns());
        let floats = read_floats(files.floats.as_deref(), float_columns)?;
        let cats = read_cats(files.cats.as_deref(), cat_columns)?;
        let rows = match (floats.as_ref().map(|f| f.len() / float_columns), cats.as_ref().map(Vec::len)) {
            (Some(a), Some(b)) if a != b => bail!("{a} rows of numbers, but {b} rows of categories"),
            (Some(rows), _) | (None, Some(rows)) => rows,
            (None, None) => bail!("{}: a model without inputs answers no rows", self.file.display()),
        };
        let binding = self.binding(&model)?;
        let mut scratch = Scratch::for_model(&model);
        let mut values = vec![0.0; float_columns + cat_columns];
        let mut answers = vec![0.0; rows * model.output_dimensions()];
        for (row, answer) in answers.chunks_mut(model.output_dimensions()).enumerate() {
            if let Some(floats) = &floats {
                values[..float_columns]
                    .copy_from_slice(&floats[row * float_columns..(row + 1) * float_columns]);
            }
            if let Some(cats) = &cats {
                values[float_columns..].copy_from_slice(&cats[row]);
            }
            model.raw(&values, &binding, &mut scratch, answer)?;
        }
        Ok(answers)
    }
}

/// The numbers of all rows; `None` where the model has no numeric columns.
fn read_floats(path: Option<&Path>, columns: usize) -> Result<Option<Vec<f32>>> {
    let Some(path) = needed(path, columns, "--floats", "numeric")? else { return Ok(None) };
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    ensure!(
        bytes.len().is_multiple_of(4 * columns),
        "{}: {} bytes are not whole rows of {columns} f32 ({} bytes each)",
        path.display(),
        bytes.len(),
        4 * columns
    );
    Ok(Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
}

/// The hashes of the categories of each row, as the bits of numbers.
fn read_cats(path: Option<&Path>, columns: usize) -> Result<Option<Vec<Vec<f32>>>> {
    let Some(path) = needed(path, columns, "--cats", "categorical")? else { return Ok(None) };
    let text = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let row = |(i, line): (usize, &[u8])| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let hashes: Vec<_> = line.split(|b| *b == b'\t').map(|c| f32::from_bits(category_hash(c))).collect();
        let found = hashes.len();
        ensure!(
            found == columns,
            "{}:{}: {columns} categories expected, {found} found",
            path.display(),
            i + 1
        );
        Ok(hashes)
    };
    text.split(|b| *b == b'\n').enumerate().map(row).collect::<Result<_>>().map(Some)
}

fn needed<'a>(path: Option<&'a Path>, columns: usize, option: &str, kind: &str) -> Result<Option<&'a Path>> {
    match (path, columns) {
        (None, 0) => Ok(None),
        (Some(path), 0) => bail!("{}: the model has no {kind} columns; leave {option} out", path.display()),
        (None, _) => bail!("the model has {columns} {kind} columns; give their values with {option}"),
        (Some(path), _) => Ok(Some(path)),
    }
}

/// How two models differ on rows.
#[derive(Debug, PartialEq)]
struct Difference {
    answers: usize,
    /// Answers that are not the same bits.
    different: usize,
    largest: f64,
    mean: f64,
}

impl Difference {
    fn of(a: &[f64], b: &[f64]) -> Self {
        let each = || a.iter().zip(b).map(|(a, b)| (a - b).abs());
        Self {
            answers: a.len(),
            different: a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count(),
            largest: each().fold(0.0, f64::max),
            mean: each().sum::<f64>() / a.len().max(1) as f64,
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { answers, different, largest, mean } = self;
        write!(f, "{answers} answers, {different} different; largest difference {largest:e}, mean {mean:e}")
    }
}
