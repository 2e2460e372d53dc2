//! Which answer of a model is the probability of a bot, and whether it is a probability at all.

use std::fmt;

use super::ir::{AnswerForm, Model};

/// The class of bots, as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BotClass {
    /// Its index in the file's order, from 0. For a loss without classes: the index of the answer.
    Index(u32),
    /// Its name as the file has it; numbers in decimal digits, truth values as `true` and `false`.
    Name(String),
}

impl fmt::Display for BotClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// A number is an index; in quotes, as in a configuration, or anything else, it is a name.
impl std::str::FromStr for BotClass {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(name) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            return Ok(Self::Name(name.to_owned()));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Index);
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// How the answers of a model are read whose loss does not make them probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// They are probabilities; one outside of 0 to 1 gives no score.
    Probability,
    /// They are log-odds, of which the sigmoid is taken.
    LogOdds,
}

impl AnswerKind {
    /// As it is written in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probability => "probability",
            Self::LogOdds => "log_odds",
        }
    }
}

impl std::str::FromStr for AnswerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Probability, Self::LogOdds].into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| format!("expected `probability` or `log_odds`, found {text:?}"))
    }
}

/// What an operator says about a model's answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BotOptions {
    /// The class of bots; not needed where the classes are 0 and 1.
    pub class: Option<BotClass>,
    /// How answers are read; only for a loss that does not say.
    pub answer: Option<AnswerKind>,
}

/// Why a model's answers cannot be read as probabilities of a bot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BotError {
    /// The loss's answers are no probabilities.
    #[error(
        "its loss_function is {loss}, whose answer is no probability of a class; train it with Logloss or another \
         loss of a classifier, or set `answer`: \"probability\" if it always lies within 0 and 1, \"log_odds\" if \
         its sigmoid is the probability"
    )]
    Loss {
        /// The loss.
        loss: String,
    },
    /// The file names no loss.
    #[error(
        "its file names no loss_function, so that its answer may not be a probability; set `answer`: \"log_odds\" \
         for a sum of classifiers, \"probability\" if it always lies within 0 and 1"
    )]
    NoLoss,
    /// `answer` is set where the loss says how answers are read.
    #[error(
        "`answer` is set to \"{answer}\", but its loss_function {loss} says how its answers are read; remove `answer`"
    )]
    NeedlessAnswer {
        /// What is set.
        answer: &'static str,
        /// The loss.
        loss: String,
    },
    /// Nothing says which class is a bot.
    #[error(
        "its classes are {classes}, and nothing says which of them is a bot; set `bot_class` to the name of that one, in \
         quotes, or to its index"
    )]
    Unsaid {
        /// The classes.
        classes: String,
    },
    /// `bot_class` is none of the classes.
    #[error("bot_class = {found}: there is no such class; its classes are {classes}")]
    UnknownClass {
        /// What is set.
        found: BotClass,
        /// The classes.
        classes: String,
    },
    /// `bot_class` may mean two classes.
    #[error(
        "bot_class = {found} may mean either of two classes; its classes are {classes}; name the one you mean: \
         {advice}"
    )]
    AmbiguousClass {
        /// What is set.
        found: BotClass,
        /// The classes.
        classes: String,
        /// What to write instead.
        advice: String,
    },
    /// The file contradicts itself.
    #[error("its file names {names} classes, but has {answers} answers for them; train or save it again")]
    ClassCount {
        /// Names.
        names: usize,
        /// Classes by the number of answers.
        answers: usize,
    },
}

/// How a loss's answers become probabilities; `None` where they do not.
pub(super) fn answer_of_loss(loss: &str) -> Option<AnswerForm> {
    match loss {
        "Logloss" | "CrossEntropy" | "Focal" | "MultiClass" => Some(AnswerForm::Classes),
        "MultiClassOneVsAll" | "MultiLogloss" | "MultiCrossEntropy" => Some(AnswerForm::EachSigmoid),
        _ => None,
    }
}

/// The classes of a model, for messages.
struct Classes<'a> {
    names: &'a [String],
    count: usize,
}

impl fmt::Display for Classes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        const CHARACTERS: usize = 64;
        if self.names.is_empty() {
            return write!(f, "without names (index 0 to {})", self.count.saturating_sub(1));
        }
        for (index, name) in self.names.iter().enumerate().take(SHOWN) {
            let separator = if index == 0 { "" } else { ", " };
            let cut = name.char_indices().nth(CHARACTERS).map_or(name.len(), |(at, _)| at);
            let (name, rest) = name.split_at_checked(cut).unwrap_or((name, ""));
            let more = if rest.is_empty() { "" } else { "…" };
            write!(f, "{separator}{name:?}{more} (index {index})")?;
        }
        if self.names.len() > SHOWN {
            write!(f, " and {} more", self.names.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl Model {
    /// Decides how this model's answers become probabilities, so that it is compiled so, and which class is that of bots:
    /// what [`ModelRef::class_probability`](crate::ModelRef::class_probability) takes.
    ///
    /// Without `bot_class` the classes must be 0 and 1, in that order, as numbers or as text, or have no names where the
    /// loss is of two classes; then it is class 1.
    ///
    /// # Errors
    /// [`BotError`] where the loss or the classes leave that open, or contradict `options`.
    pub fn select_bot(&mut self, options: &BotOptions) -> Result<u32, BotError> {
        let of_loss = answer_of_loss(&self.loss);
        self.answer = match (of_loss, options.answer) {
            (Some(answer), None) => answer,
            // It says the same.
            (Some(AnswerForm::Classes), Some(AnswerKind::LogOdds)) if self.dimensions == 1 => {
                AnswerForm::Classes
            }
            (Some(AnswerForm::EachSigmoid), Some(AnswerKind::LogOdds)) => AnswerForm::EachSigmoid,
            (Some(_), Some(answer)) => {
                return Err(BotError::NeedlessAnswer { answer: answer.as_str(), loss: self.loss.clone() });
            }
            (None, Some(AnswerKind::Probability)) => AnswerForm::Probabilities,
            (None, Some(AnswerKind::LogOdds)) if self.dimensions == 1 => AnswerForm::Classes,
            (None, Some(AnswerKind::LogOdds)) => AnswerForm::EachSigmoid,
            (None, None) if self.loss.is_empty() => return Err(BotError::NoLoss),
            (None, None) => return Err(BotError::Loss { loss: self.loss.clone() }),
        };
        // One label alone has one name; its own probability is that of class 1.
        let lone_label = self.dimensions == 1 && self.answer == AnswerForm::EachSigmoid;
        let count = if lone_label { 1 } else { self.dimensions.max(2) };
        let names = self.class_names.as_slice();
        if !names.is_empty() && names.len() != count {
            return Err(BotError::ClassCount { names: names.len(), answers: count });
        }
        let shown = || Classes { names, count }.to_string();
        let class = match &options.class {
            None => {
                let two = names.is_empty() && self.dimensions == 1 && !lone_label;
                if !two && names != ["0", "1"] {
                    return Err(BotError::Unsaid { classes: shown() });
                }
                1
            }
            Some(found @ BotClass::Name(name)) => {
                let mut with_name = names.iter().enumerate().filter(|(_, known)| *known == name);
                let unknown = || BotError::UnknownClass { found: found.clone(), classes: shown() };
                let (index, _) = with_name.next().ok_or_else(unknown)?;
                if let Some((other, _)) = with_name.next() {
                    let advice = format!("bot_class = {index} or bot_class = {other}");
                    return Err(BotError::AmbiguousClass { found: found.clone(), classes: shown(), advice });
                }
                index
            }
            Some(found @ BotClass::Index(number)) => {
                let index = usize::try_from(*number).ok().filter(|index| *index < count);
                let text = number.to_string();
                let named = names.iter().position(|name| *name == text);
                match (index, named) {
                    // Classes that are numbers in another order than their indices.
                    (Some(index), Some(named)) if index != named => {
                        let name = names.get(index).map_or("", String::as_str);
                        let advice = format!("bot_class = {text:?} or bot_class = {name:?}");
                        return Err(BotError::AmbiguousClass {
                            found: found.clone(),
                            classes: shown(),
                            advice,
                        });
                    }
                    (Some(index), _) => index,
                    (None, _) => {
                        return Err(BotError::UnknownClass { found: found.clone(), classes: shown() });
                    }
                }
            }
        };
        let class = if lone_label { 1 } else { class };
        u32::try_from(class).map_err(|_| BotError::ClassCount { names: names.len(), answers: count })
    }

    /// Whether its answers are about labels that may hold together, and these have no names but numbers: then only the
    /// operator knows which one is that of bots.
    #[must_use]
    pub fn has_numbered_labels(&self) -> bool {
        let numbered = |(index, name): (usize, &String)| *name == index.to_string();
        matches!(self.loss.as_str(), "MultiLogloss" | "MultiCrossEntropy")
            && self.class_names.iter().enumerate().all(numbered)
    }
}
