//! The nftables expressions and statements that the guard is made of.

use nftables::expr::{
    Expression, Meta, MetaKey, NamedExpression, Payload, PayloadBase, PayloadField, PayloadRaw,
    Prefix, Range, SetItem,
};
use nftables::stmt::{Counter, JumpTarget, Match, Operator, Statement};

pub(super) fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    let op = Operator::EQ;
    Statement::Match(Match { left, right, op })
}

pub(super) fn is_not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    let op = Operator::NEQ;
    Statement::Match(Match { left, right, op })
}

pub(super) fn count(counter: &'static str) -> Statement<'static> {
    Statement::Counter(Counter::Named(counter.into()))
}

pub(super) fn discard() -> Statement<'static> {
    Statement::Drop(None)
}

pub(super) fn accept() -> Statement<'static> {
    Statement::Accept(None)
}

pub(super) fn jump(chain: &str) -> Statement<'static> {
    let target = chain.to_owned().into();
    Statement::Jump(JumpTarget { target })
}

pub(super) fn text(value: &str) -> Expression<'static> {
    Expression::String(value.to_owned().into())
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let (protocol, field) = (protocol.into(), field.into());
    let payload = Payload::PayloadField(PayloadField { protocol, field });
    Expression::Named(NamedExpression::Payload(payload))
}

pub(super) fn raw(offset: u32, len: u32) -> Expression<'static> {
    let base = PayloadBase::NH;
    let payload = Payload::PayloadRaw(PayloadRaw { base, offset, len });
    Expression::Named(NamedExpression::Payload(payload))
}

pub(super) fn prefix(address: String, len: u8) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(Expression::String(address.into())),
        len: len.into(),
    }))
}

pub(super) fn range(low: Expression<'static>, high: Expression<'static>) -> Expression<'static> {
    let range = [low, high];
    Expression::Range(Box::new(Range { range }))
}

pub(super) fn any_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Expression<'static> {
    one_or_set(names.into_iter().map(text)).unwrap_or_else(|| text(""))
}

/// A set of one is written as its element: newer nft lists it so.
pub(super) fn one_or_set(
    items: impl Iterator<Item = Expression<'static>>,
) -> Option<Expression<'static>> {
    let mut items: Vec<_> = items.collect();
    match items.len() {
        0 => None,
        1 => items.pop(),
        _ => {
            let items = items.into_iter().map(SetItem::Element).collect();
            Some(Expression::Named(NamedExpression::Set(items)))
        }
    }
}
