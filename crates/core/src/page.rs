//! Self-contained pages from templates, in one style.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Told};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

use crate::error::{Code, Fault};
use crate::input::sentence;

pub(crate) fn broken(error: minijinja::Error) -> Fault {
    Fault::new(Code::Internal, "could not render the page").detail(sentence(&error.to_string()))
}

/// Templates that escape every value for HTML, fail at a value that does not exist, and may include `style`.
pub(crate) fn environment() -> Result<Environment<'static>, Fault> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(broken)?);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("words", |text: String| text.replace('_', " "));
    environment.add_template("style", include_str!("page.css")).map_err(broken)?;
    Ok(environment)
}

/// The page of a template, which has the data as `r`.
pub fn render(template: &'static str, data: &Value) -> Result<String, Fault> {
    let mut environment = environment()?;
    environment.add_template("page", template).map_err(broken)?;
    let context = minijinja::context! { r => Told::from(Serde(data)) };
    environment.get_template("page").and_then(|page| page.render(context)).map_err(broken)
}
