//! Exports of the status matrix: the report and OSCAL.

use crate::settings;
use serde::Deserialize;
use serde_json::{Value, json};
use skill_core::compliance::oscal::{About, Cell, Evidence, assessment_results};
use skill_core::compliance::report::{MAX_ROWS, render};
use skill_core::compliance::rules::difference;
use skill_core::input::{optional, required};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, FromRow, Json, Row, arg, pg_function};

use crate::args::given;

/// Statuses of a cell that is not done.
const NOT_DONE: [&str; 3] = ["overdue", "action_needed", "in_review"];

fn check_max_rows(max_rows: Option<i32>, most: i32) -> Result<i32, Fault> {
    let max_rows = given(max_rows, "max_rows")?;
    if (1..=most).contains(&max_rows) {
        return Ok(max_rows);
    }
    Err(Fault::new(Code::InvalidParameterValue, format!("max_rows must be between 1 and {most}")))
}

/// The rows of a statement whose only column is a jsonb as text.
fn list(sql: &'static str, args: &[Arg]) -> Vec<Value> {
    spi::collect(sql, As::Caller, See::Statement, args)
}

pg_function!(compliance_report);
fn compliance_report(call: &Call) -> Answer {
    let (format, title, max_rows): (Option<&str>, _, _) = call.arguments();
    let title = required("title", title, 300)?;
    let rows = check_max_rows(max_rows, MAX_ROWS)?;
    let mut data: Value = spi::one(
        "SELECT jsonb_build_object('generated_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"'), \
             'now_epoch', extract(epoch FROM now()), \
             'entities', (SELECT count(*) FROM (SELECT FROM skill_system.compliance_status \
                 WHERE tenant_id = skill_system.current_tenant() GROUP BY entity_id) e))::text",
        As::Caller,
        See::Statement,
        &[],
    );
    let (counts, domains, districts) = tallies();
    data["title"] = title.into();
    data["tenant"] = settings::tenant()?.into();
    data["rows"] = rows.into();
    data["cells"] = counts.values().filter_map(Value::as_i64).sum::<i64>().into();
    data["counts"] = counts.into();
    data["districts"] = districts.into();
    data["matrix"] = matrix(rows, &domains).into();
    data["domains"] = domains.into();
    data["deadlines"] = list(
        "SELECT jsonb_build_object('entity_id', entity_id, 'entity_name', entity_name, 'domain', compliance_domain, 'status', status, \
             'deadline', to_char(deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD'), 'days', \
             floor(extract(epoch FROM time_left) / 86400)::integer, 'epoch', extract(epoch FROM deadline))::text \
         FROM skill_system.compliance_cells \
         WHERE tenant_id = skill_system.current_tenant() AND isfinite(deadline) \
             AND status IN ('overdue', 'action_needed', 'in_review') ORDER BY deadline LIMIT $1",
        &[arg(rows)],
    )
    .into();
    data["stale"] = stale(rows).into();
    data["evidence"] = list(
        "SELECT jsonb_build_object('name', a.name, 'type', a.artifact_type, 'entity_id', c.entity_id, \
             'domain', c.compliance_domain, 'digest', a.content_sha256, 'size', a.size_bytes, \
             'created', to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), \
             'expires', to_char(a.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'))::text \
         FROM skill_system.checklist_artifacts a JOIN skill_system.filing_checklists c ON c.tenant_id = a.tenant_id \
             AND c.id = a.checklist_id \
         WHERE a.tenant_id = skill_system.current_tenant() AND a.withdrawn_at IS NULL ORDER BY a.id DESC LIMIT $1",
        &[arg(rows)],
    )
    .into();
    let report = render(format, data)?;
    Ok(call.answer(&report))
}

/// Counts by status, the domains, and the districts with their cells by domain.
fn tallies() -> (serde_json::Map<String, Value>, Vec<String>, Vec<Value>) {
    let statuses = ["overdue", "action_needed", "in_review", "compliant", "not_applicable"];
    let mut counts: serde_json::Map<String, Value> =
        statuses.iter().map(|status| ((*status).to_owned(), 0.into())).collect();
    let mut domains: Vec<String> = Vec::new();
    let mut by_district: std::collections::BTreeMap<String, std::collections::HashMap<String, [i64; 3]>> =
        std::collections::BTreeMap::new();
    let found = spi::collect::<(String, String, String, i64)>(
        "SELECT compliance_domain::text, coalesce(entity_district, '–')::text, status, sum(entities)::bigint \
         FROM skill_system.compliance_counts \
         WHERE tenant_id = skill_system.current_tenant() GROUP BY 1, 2, 3 ORDER BY 1",
        As::Caller,
        See::Statement,
        &[],
    );
    for (domain, district, status, entities) in found {
        let [open, overdue, total] = by_district.entry(district).or_default().entry(domain.clone()).or_default();
        *total += entities;
        *open += if NOT_DONE.contains(&status.as_str()) { entities } else { 0 };
        *overdue += if status == "overdue" { entities } else { 0 };
        counts[&status] = (counts[&status].as_i64().unwrap_or_default() + entities).into();
        if domains.last() != Some(&domain) {
            domains.push(domain);
        }
    }
    let level = |open: i64, overdue: i64, total: i64| match (open, overdue) {
        (0, _) => 0,
        (_, 0) => 1,
        _ if overdue * 4 < total => 2,
        _ => 3,
    };
    let districts = by_district.into_iter().map(|(district, cells)| {
        let cells: Vec<Value> = domains
            .iter()
            .map(|domain| cells.get(domain).copied().unwrap_or_default())
            .map(|[open, overdue, total]| json!({"open": open, "overdue": overdue, "total": total, "level": level(open, overdue, total)}))
            .collect();
        json!({"district": district, "cells": cells})
    });
    let districts = districts.collect();
    (counts, domains, districts)
}

/// The entities that need attention most, with a status per domain.
fn matrix(rows: i32, domains: &[String]) -> Vec<Value> {
    let mut found = list(
        "SELECT jsonb_build_object('entity_id', entity_id, 'entity_name', min(entity_name), 'entity_type', min(entity_type), \
             'entity_district', min(entity_district), \
             'cells', jsonb_object_agg(compliance_domain, status))::text \
         FROM skill_system.compliance_cells WHERE tenant_id = skill_system.current_tenant() GROUP BY entity_id \
         ORDER BY min(array_position(ARRAY['overdue', 'action_needed', 'in_review', 'compliant', 'not_applicable'], status)), \
             min(deadline), entity_id LIMIT $1",
        &[arg(rows)],
    );
    for entity in &mut found {
        entity["statuses"] = domains.iter().map(|domain| entity["cells"][domain.as_str()].clone()).collect();
        if let Some(entity) = entity.as_object_mut() {
            entity.remove("cells");
        }
    }
    found
}

/// The stale rules of open filings, with what changed.
fn stale(rows: i32) -> Vec<Value> {
    let mut found = list(
        "SELECT jsonb_build_object('entity_id', f.entity_id, 'domain', f.compliance_domain, 'rule', f.rule_identifier, \
             'frozen', f.frozen_version, 'current', f.current_version, \
             'before', s.rule_data_at_snapshot, 'after', n.rule_data)::text \
         FROM skill_system.stale_filings(max_rows => $1) f \
         JOIN skill_system.filing_rule_snapshots s ON s.tenant_id = skill_system.current_tenant() AND s.id = f.snapshot_id \
         JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by",
        &[arg(rows)],
    );
    for filing in &mut found {
        let (_, lines) = difference(&filing["before"], &filing["after"]);
        if let Some(filing) = filing.as_object_mut() {
            filing.remove("before");
            filing.remove("after");
            filing.insert("lines".into(), lines.into_iter().take(20).collect());
        }
    }
    found
}

struct CellRow(Cell);

impl FromRow<'_> for CellRow {
    fn from_row(row: &Row<'_>) -> Self {
        CellRow(read_cell(row))
    }
}

/// What is known about a cell; `None` where nothing is known.
#[derive(Deserialize)]
struct Known {
    evidence: Option<Vec<Evidence>>,
    rules: Option<Vec<String>>,
}

fn read_cell(row: &Row) -> Cell {
    let (entity_id, entity_type, entity_name, domain, status, deadline, assessed_at, checklist_id, Json(known)) =
        row.read();
    let Known { evidence, rules } = known;
    Cell {
        entity_id,
        entity_type,
        entity_name,
        domain,
        status,
        deadline,
        assessed_at,
        checklist_id,
        evidence: evidence.unwrap_or_default(),
        rules: rules.unwrap_or_default(),
    }
}

pg_function!(oscal_assessment_results);
fn oscal_assessment_results(call: &Call) -> Answer {
    let (entity_id, domain, title, max_rows) = call.arguments();
    let entity = optional("entity_id", entity_id, 255)?;
    let domain = optional("compliance_domain", domain, 50)?;
    let title = required("title", title, 300)?;
    let most = check_max_rows(max_rows, 10_000)?;
    // At most a thousand pieces of evidence per cell, so that the document fits into one value.
    let cells = spi::collect::<CellRow>(
        include_str!("oscal_cells.sql"),
        As::Caller,
        See::Statement,
        &[arg(entity), arg(domain), arg(most)],
    );
    let mut cells: Vec<Cell> = cells.into_iter().map(|CellRow(cell)| cell).collect();
    let truncated = cells.len() > most as usize;
    cells.truncate(most as usize);
    const NOW: &str = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let at: String = spi::one(NOW, As::Caller, See::Statement, &[]);
    let about = About { title, tenant: &settings::tenant()?, at: &at, truncated };
    Ok(call.answer(assessment_results(&about, &cells)))
}
