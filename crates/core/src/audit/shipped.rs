//! What the install script declares, read from its text: the functions, and the columns of the audit tables.
//!
//! The script is part of the library, so this is what the catalogue must contain.

/// A function of the install script.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Function {
    /// Name without schema; overloads share it.
    pub name: String,
    /// `c` or `sql`.
    pub language: String,
    /// The symbol in the library; `None` for another language.
    pub symbol: Option<String>,
    /// It carries `SET search_path = pg_catalog, pg_temp`.
    pub pinned: bool,
    pub strict: bool,
}

/// A column of an audit table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Column {
    /// The table, without schema.
    pub relation: String,
    pub name: String,
    /// Its type, as format_type() writes it.
    pub kind: String,
    /// NOT NULL, also by being part of the primary key.
    pub not_null: bool,
}

/// What the script declares.
#[derive(Debug, Default)]
pub struct Shipped {
    pub functions: Vec<Function>,
    /// The columns of the tables audit_*, partitions left out.
    pub columns: Vec<Column>,
}

/// Reads an install script, or a part of it.
pub fn read(script: &str) -> Shipped {
    let mut shipped = Shipped::default();
    for statement in statements(script, false) {
        if let Some(rest) = statement.strip_prefix("CREATE FUNCTION skill_system.") {
            shipped.functions.extend(function(rest));
        } else if let Some(rest) = statement.strip_prefix("CREATE TABLE skill_system.")
            && rest.starts_with("audit_")
        {
            shipped.columns.extend(columns(rest));
        }
    }
    shipped
}

/// A right that the script grants.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Grant {
    /// `relation`, `function`, `type` or `schema`.
    pub kind: &'static str,
    /// As the script names it.
    pub object: String,
    /// Of a relation; empty for the whole.
    pub column: String,
    pub privilege: String,
    pub role: String,
}

/// The rights that a script grants.
pub fn grants(script: &str) -> Vec<Grant> {
    let mut found = Vec::new();
    for statement in statements(script, false) {
        let parts =
            statement.strip_prefix("GRANT ").and_then(|rest| rest.rsplit_once(" TO ")).and_then(|(rest, roles)| {
                rest.split_once(" ON ").map(|(privileges, objects)| (privileges, objects, roles))
            });
        let Some((privileges, objects, roles)) = parts else { continue };
        let (kind, objects) = match objects.split_once(' ') {
            Some(("FUNCTION", rest)) => ("function", rest),
            Some(("TYPE", rest)) => ("type", rest),
            Some(("SCHEMA", rest)) => ("schema", rest),
            Some(("TABLE" | "SEQUENCE", rest)) => ("relation", rest),
            _ => ("relation", objects),
        };
        for privilege in items(privileges) {
            let (privilege, columns) = match privilege.split_once('(') {
                Some((privilege, columns)) => (privilege.trim(), items(columns)),
                None => (privilege.as_str(), vec![String::new()]),
            };
            for object in items(objects) {
                for role in items(roles) {
                    found.extend(columns.iter().map(|column| Grant {
                        kind,
                        object: object.clone(),
                        column: column.clone(),
                        privilege: privilege.to_owned(),
                        role: role.clone(),
                    }));
                }
            }
        }
    }
    found
}

/// The statements without comments, white space as single spaces; with `lines`, a space that holds a line end is one, as
/// adjacent literals need it.
pub fn statements(script: &str, lines: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut rest = script;
    while let Some(first) = rest.chars().next() {
        // The length of what is copied unchanged.
        let length = if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        } else if first == '\'' {
            // A doubled quote is read as two adjacent literals, with the same result.
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if let Some(body) = rest.strip_prefix("$$") {
            body.find("$$").map_or(rest.len(), |end| end + 4)
        } else if first == ';' && (!statement.contains("BEGIN ATOMIC") || statement.trim_end().ends_with(" END")) {
            found.push(std::mem::take(&mut statement).trim().to_owned());
            rest = &rest[1..];
            continue;
        } else if first.is_whitespace() {
            if lines && first == '\n' {
                statement.truncate(statement.trim_end_matches(' ').len());
                statement.push('\n');
            } else if !statement.ends_with([' ', '\n']) {
                statement.push(' ');
            }
            rest = &rest[first.len_utf8()..];
            continue;
        } else {
            first.len_utf8()
        };
        statement.push_str(&rest[..length]);
        rest = &rest[length..];
        if statement.trim().is_empty() {
            statement.clear();
        }
    }
    found.iter().map(|statement| statement.trim().to_owned()).collect()
}

fn function(declaration: &str) -> Option<Function> {
    let (name, rest) = declaration.split_once('(')?;
    let language = rest.split_once(" LANGUAGE ")?.1.split(' ').next()?.to_owned();
    let symbol =
        rest.split_once("AS 'MODULE_PATHNAME', '").and_then(|(_, after)| after.split('\'').next()).map(str::to_owned);
    Some(Function {
        name: name.to_owned(),
        language,
        symbol,
        pinned: rest.contains("SET search_path = pg_catalog, pg_temp"),
        strict: rest.contains(" STRICT"),
    })
}

fn columns(declaration: &str) -> Vec<Column> {
    let Some((relation, rest)) = declaration.split_once('(') else {
        return Vec::new();
    };
    // PARTITION OF, or another form without columns.
    let relation = relation.trim();
    if relation.contains(' ') {
        return Vec::new();
    }
    let mut found: Vec<Column> = Vec::new();
    for item in items(rest) {
        if let Some(keys) = item.strip_prefix("PRIMARY KEY (") {
            let keys: Vec<&str> = keys.trim_end_matches(')').split(',').map(str::trim).collect();
            found
                .iter_mut()
                .filter(|column| keys.contains(&column.name.as_str()))
                .for_each(|column| column.not_null = true);
        } else if item.starts_with(|c: char| c.is_ascii_lowercase())
            && let Some((name, definition)) = item.split_once(' ')
        {
            let kind: Vec<&str> =
                definition.split(' ').take_while(|word| !word.starts_with(|c: char| c.is_ascii_uppercase())).collect();
            found.push(Column {
                relation: relation.to_owned(),
                name: name.to_owned(),
                kind: type_name(&kind.join(" ")),
                not_null: definition.contains("NOT NULL") || definition.contains("PRIMARY KEY"),
            });
        }
    }
    found
}

/// The parts between commas up to the closing parenthesis.
fn items(list: &str) -> Vec<String> {
    let (mut depth, mut quoted) = (0, false);
    let mut found = vec![String::new()];
    for c in list.chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => break,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = found.last_mut() {
            last.push(c);
        }
    }
    found.iter().map(|item| item.trim().to_owned()).collect()
}

/// The name format_type() gives.
fn type_name(written: &str) -> String {
    written.replace("varchar", "character varying").replace("timestamptz", "timestamp with time zone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_with_their_symbols() {
        let shipped = read(
            "-- a comment; CREATE FUNCTION skill_system.no(\nCREATE FUNCTION skill_system.one(a text DEFAULT ';') RETURNS text\n    LANGUAGE c STABLE STRICT\n AS 'MODULE_PATHNAME', 'one_wrapper' SET search_path = pg_catalog, pg_temp;\n\
             COMMENT ON FUNCTION skill_system.one(text) IS 'It''s; CREATE FUNCTION skill_system.not_this() x';\n\
             DO $$ BEGIN x; CREATE FUNCTION skill_system.nor_this(); END $$;\n\
             CREATE FUNCTION skill_system.two() RETURNS bigint LANGUAGE sql\nBEGIN ATOMIC\n SELECT 1;\n SELECT 2;\nEND;\nCREATE FUNCTION skill_system.three() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'three';",
        );
        let all: Vec<_> = shipped
            .functions
            .iter()
            .map(|f| (f.name.as_str(), f.language.as_str(), f.symbol.as_deref(), f.pinned, f.strict))
            .collect();
        assert_eq!(
            all,
            [
                ("one", "c", Some("one_wrapper"), true, true),
                ("two", "sql", None, false, false),
                ("three", "c", Some("three"), false, false)
            ]
        );
    }

    #[test]
    fn rights_by_object_column_and_role() {
        let found = grants(
            "GRANT SELECT ON skill_system.a, skill_system.b TO x, y;\nGRANT INSERT (c,\n d), UPDATE ON skill_system.a TO x;\n\
             GRANT EXECUTE ON FUNCTION\n  skill_system.f(text, int[]), skill_system.g() TO x;\nGRANT USAGE ON SCHEMA s TO x;",
        );
        let all: Vec<_> =
            found.iter().map(|g| format!("{} {} {} {} {}", g.kind, g.object, g.column, g.privilege, g.role)).collect();
        assert_eq!(
            all,
            [
                "relation skill_system.a  SELECT x",
                "relation skill_system.a  SELECT y",
                "relation skill_system.b  SELECT x",
                "relation skill_system.b  SELECT y",
                "relation skill_system.a c INSERT x",
                "relation skill_system.a d INSERT x",
                "relation skill_system.a  UPDATE x",
                "function skill_system.f(text, int[])  EXECUTE x",
                "function skill_system.g()  EXECUTE x",
                "schema s  USAGE x",
            ]
        );
    }

    #[test]
    fn statements_keep_the_lines_between_literals() {
        let found = statements("COMMENT ON TABLE a IS 'x '  \n   'y; z';\n\n-- no\nSELECT 1;", true);
        assert_eq!(found, ["COMMENT ON TABLE a IS 'x '\n'y; z'", "SELECT 1"]);
    }

    #[test]
    fn columns_with_types_and_not_null() {
        let shipped = read(
            "CREATE TABLE skill_system.audit_x (\n  a varchar(100) NOT NULL,\n  b timestamptz DEFAULT pg_catalog.now(),\n  c int8range CHECK (c IN ('a, b', ')')),\n d bytea,\n  PRIMARY KEY (d, b)\n);\n\
             CREATE TABLE skill_system.other (a text);\nCREATE TABLE skill_system.audit_y PARTITION OF skill_system.audit_x FOR VALUES FROM (1) TO (2);",
        );
        let all: Vec<_> = shipped
            .columns
            .iter()
            .map(|c| (c.relation.as_str(), c.name.as_str(), c.kind.as_str(), c.not_null))
            .collect();
        assert_eq!(
            all,
            [
                ("audit_x", "a", "character varying(100)", true),
                ("audit_x", "b", "timestamp with time zone", true),
                ("audit_x", "c", "int8range", false),
                ("audit_x", "d", "bytea", true)
            ]
        );
    }
}
