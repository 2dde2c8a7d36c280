"""The small faults that mutation testing puts into a source: where, and what instead.

One fault at a time, each a piece of text in the place of another, so that a diff shows nothing else. Left alone are
annotations, docstrings, decorators, assertions, texts with what they format, and functions that draw a figure: those
show something, they do not decide.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type[ast.cmpop] | type[ast.operator], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.BitXor: ("^", "|"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
}  # fmt: skip
"""How an operator is written, and which stands there instead."""

_PAIRS = [
    ("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("any", "all"), ("sum", "mean"), ("floor", "ceil"),
    ("zeros", "ones"), ("zeros_like", "ones_like"), ("sin", "cos"), ("softmax", "log_softmax"),
]  # fmt: skip

OPPOSITES = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}, "clamp_min": "clamp_max", "zeros_": "ones_"}
"""Functions by the name that is called, and which is called instead."""

DISPENSABLE = {"abs", "sorted", "reversed", "detach", "contiguous", "float", "double", "square", "sqrt", "exp", "log"}
"""Functions of one value that are left out, so that the value itself stays."""


@dataclass(frozen=True, order=True)
class Mutant:
    """One fault: in `file` (a path from the root) the bytes `start`..`end`, on line `line`, become `new`."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str
    text: str
    """The line, stripped: with `mutation` it names the fault in the list of equivalent ones, wherever it moves."""

    @property
    def mutation(self) -> str:
        return f"{self.old} -> {self.new}"

    def applied(self, source: str) -> str:
        data = source.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()

    def key(self, source: str) -> str:
        """A digest of the file as it is with the fault."""
        return hashlib.sha256(f"{self.file}\n{self.applied(source)}".encode()).hexdigest()


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Every fault that can be put into `source`, in the order of its lines."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    data = source.encode()
    found: dict[tuple[int, int, str], Mutant] = {}

    def place(node: Any) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def text_of(node: ast.AST, last: ast.AST | None = None) -> str:
        """The text of `node`, or from its beginning to the end of `last`."""
        return data[place(node)[0] : place(last or node)[1]].decode()

    for node, parent in walked(ast.parse(source), None):
        start, end = place(node) if hasattr(node, "lineno") else (0, 0)
        for new in replacements(node, parent, text_of):
            old = data[start:end].decode()
            line = getattr(node, "lineno", 1)
            mutant = Mutant(
                file, line, start, end, " ".join(old.split()), new, lines[line - 1].decode().strip()
            )  # a fault of several lines is named by its first
            if new != old:
                found.setdefault((start, end, new), mutant)
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.new))


def walked(node: ast.AST, parent: ast.AST | None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """`node` and all below it that decides something, each with its parent."""
    yield node, parent
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr | ast.Assert) and not silent(child):
                yield from walked(child, node)


def silent(node: ast.AST) -> bool:
    """Whether `node` is a docstring, an import, or a function that makes or takes a figure."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.FunctionDef):
        return any(isinstance(part, ast.Name) and part.id == "Figure" for part in ast.walk(node))
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def replacements(node: ast.AST, parent: ast.AST | None, text_of: Any) -> Iterator[str]:
    """The texts that can stand in the place of `node`, each with a fault."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            yield with_operator(node, left, op, right, text_of)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS and not is_type(node):
            yield with_operator(node, left, op, right, text_of)
        case ast.BoolOp(op=op, values=values):
            joint = " or " if isinstance(op, ast.And) else " and "
            yield joint.join(f"({text_of(value)})" for value in values)
        case ast.UnaryOp(operand=operand):
            simple = isinstance(operand, ast.Constant | ast.Name | ast.Attribute | ast.Call | ast.Subscript)
            yield text_of(operand) if simple else f"({text_of(operand)})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield str(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(2 * value if value else 1.0)
        case ast.Call():
            yield from other_calls(node, text_of)
        case ast.Return(value=ast.AST() as value):
            yield "return None"
            if isinstance(value, ast.Tuple) and len(value.elts) == 2:
                yield f"return {text_of(value.elts[1])}, {text_of(value.elts[0])}"
        case ast.Assign(value=ast.Tuple(elts=[first, second]), targets=targets):
            yield f"{text_of(targets[0])} = {text_of(second)}, {text_of(first)}"
        case ast.Assign() if can_be_left_out(node):
            yield "pass"
        case ast.AugAssign(target=target, op=op, value=value):
            yield "pass"
            if type(op) in OPERATORS:
                yield f"{text_of(target)} {OPERATORS[type(op)][1]}= {text_of(value)}"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
            yield "pass"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"
    conditional = isinstance(parent, ast.If | ast.While | ast.IfExp) and node is parent.test
    filtering = isinstance(parent, ast.comprehension) and node in parent.ifs
    if (conditional or filtering) and not isinstance(node, ast.Compare):
        yield f"not ({text_of(node)})"


def with_operator(node: ast.AST, left: ast.AST, op: ast.AST, right: ast.AST, text_of: Any) -> str:
    """`node` with the other operator between `left` and `right`; the brackets around these stay."""
    old, new = OPERATORS[type(op)]  # pyright: ignore[reportArgumentType]
    head, whole, tail = len(text_of(node, left)), text_of(node), len(text_of(right, node))
    between = whole[head : len(whole) - tail]
    return whole[:head] + between.replace(old, new, 1) + whole[len(whole) - tail :]


def other_calls(node: ast.Call, text_of: Any) -> Iterator[str]:
    """A call of the opposite function, with its first two arguments exchanged, without one of its keywords, or none."""
    function, arguments = text_of(node.func), [text_of(item) for item in (*node.args,)]
    keywords = [
        f"{item.arg}={text_of(item.value)}" if item.arg else f"**{text_of(item.value)}" for item in node.keywords
    ]
    name = node.func.attr if isinstance(node.func, ast.Attribute) else function
    owner = text_of(node.func.value) if isinstance(node.func, ast.Attribute) else None
    if name in ("isinstance", "cast", "super"):
        return
    if name in OPPOSITES and (owner is not None or name in ("min", "max", "any", "all")):
        yield f"{function.removesuffix(name)}{OPPOSITES[name]}({', '.join((*arguments, *keywords))})"
    if name in DISPENSABLE:
        alone = owner if owner is not None and not arguments else arguments[0] if arguments else None
        if alone is not None:
            yield alone
    if len(arguments) >= 2 and not any(isinstance(item, ast.Starred) for item in node.args[:2]):
        yield f"{function}({', '.join((arguments[1], arguments[0], *arguments[2:], *keywords))})"
    for item in node.keywords:
        if item.arg:
            rest = [text for keyword, text in zip(node.keywords, keywords, strict=True) if keyword is not item]
            yield f"{function}({', '.join((*arguments, *rest))})"


def can_be_left_out(node: ast.Assign) -> bool:
    """Whether the names that `node` gives may stand for something already: attributes, entries, and names it reads."""
    read = {item.id for item in ast.walk(node.value) if isinstance(item, ast.Name)}
    return all(
        isinstance(target, ast.Attribute | ast.Subscript) or (isinstance(target, ast.Name) and target.id in read)
        for target in node.targets
    )


def is_type(node: ast.BinOp) -> bool:
    """Whether `node` is a union of types, as in isinstance(x, A | B)."""
    sides = (node.left, node.right)
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(side, ast.BinOp) and is_type(side))
        or (isinstance(side, ast.Attribute) and side.attr[:1].isupper())
        or (isinstance(side, ast.Name) and side.id[:1].isupper() and not side.id.isupper())
        for side in sides
    )  # fmt: skip
