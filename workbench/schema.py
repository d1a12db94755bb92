"""What words mean: every entity and field of the lake, with type, unit, meaning, key, personal or not, known-at.

One line a field: `name | type | known_at | flags | meaning`. Types: text, int, float, money, bool, date, time.
known_at (the default; table `field` overrides it per source): fixed = set once, at creation; historized = every change
is a version; current_only = the CRM tells only today's value; assumed = a mapping's word.
Flags: K key of another entity (K:entity), P personal data, O outcome (known only when the story has ended).
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import WorkbenchError

DUCKDB_TYPES = {"text": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "money": "DECIMAL(18,2)", "bool": "BOOLEAN",
                "date": "DATE", "time": "TIMESTAMP"}
KNOWN_AT = ("fixed", "historized", "current_only", "assumed", "outcome")
NEVER_LEARNED = ("current_only", "outcome")  # no training before the caller names the field
ORIGINS = ("crm_history", "sync_diff", "import", "demo")
# The outcome of a lead and a deal as SQL: won, lost (neither = open), and when it was decided.
WON = {"lead": "is_converted", "deal": "is_won"}
LOST = {"lead": "coalesce(is_lost, not is_converted)", "deal": "not is_won"}
CLOSED = {"lead": "coalesce(converted_at, closed_at)", "deal": "closed_at"}

_TEXT = """
user: a person of the selling organization who owns records
  name | text | historized | P | full name
  email | text | historized | P | e-mail address
  manager | text | historized | | name of the manager
  team | text | historized | | team that the user sells in
  territory | text | historized | | region or territory
  is_active | bool | historized | | may still log in
stage: one step of a lead or deal process
  pipeline | text | fixed | | the process that it belongs to
  name | text | fixed | | name as shown
  position | int | fixed | | order within the pipeline, from 1
  probability | float | fixed | | the CRM's own win probability, 0..1
  outcome | text | fixed | | open, won or lost
campaign: a marketing effort
  name | text | historized | | name
  kind | text | fixed | | webinar, e-mail, event ...
  starts_on | date | historized | | first day
  ends_on | date | historized | | last day
  cost | money | historized | | actual cost, in currency
  currency | text | fixed | | ISO 4217 code
account: a company that is sold to
  name | text | historized | | company name
  industry | text | historized | | industry or sector
  employees | int | historized | | number of employees
  annual_revenue | money | historized | | yearly revenue, in currency
  currency | text | fixed | | ISO 4217 code
  country | text | historized | | country
  city | text | historized | | city
  parent_id | text | historized | K:account | parent company
  owner_id | text | historized | K:user | owner
  founded_year | int | fixed | | year of foundation
  created_at | time | fixed | | creation in the CRM
contact: a person at an account, or a buyer
  name | text | historized | P | full name
  email | text | historized | P | e-mail address
  phone | text | historized | P | phone number
  title | text | historized | | job title
  account_id | text | historized | K:account | employer
  owner_id | text | historized | K:user | owner
  country | text | historized | | country
  city | text | historized | | city
  do_not_email | bool | historized | | e-mail consent is refused
  do_not_call | bool | historized | | call consent is refused
  created_at | time | fixed | | creation in the CRM
lead: somebody who may become a customer
  name | text | historized | P | full name
  email | text | historized | P | e-mail address
  phone | text | historized | P | phone number
  company | text | historized | | company as typed
  title | text | historized | | job title
  industry | text | historized | | industry
  employees | int | historized | | number of employees of the company
  country | text | historized | | country
  city | text | historized | | city
  source | text | fixed | | channel that the lead came through
  origin_form | text | fixed | | form or process that entered it
  campaign_id | text | fixed | K:campaign | campaign that brought it
  owner_id | text | historized | K:user | owner
  status | text | historized | | working status
  rating | text | historized | | hot, warm, cold as judged by a person
  do_not_email | bool | historized | | e-mail consent is refused
  do_not_call | bool | historized | | call consent is refused
  n_visits | int | historized | | web visits so far
  web_seconds | float | historized | | seconds spent on the web site so far
  pages_per_visit | float | historized | | pages per web visit
  created_at | time | fixed | | creation in the CRM
  created_order | int | fixed | | order of creation where no date exists
  is_converted | bool | outcome | O | became a customer, contact or deal
  converted_at | time | outcome | O | time of conversion
  is_lost | bool | outcome | O | was given up
  closed_at | time | outcome | O | time of conversion or loss
  converted_contact_id | text | outcome | O K:contact | contact that it became
  converted_deal_id | text | outcome | O K:deal | deal that it became
deal: an opportunity to sell
  name | text | historized | | name
  account_id | text | historized | K:account | account
  contact_id | text | historized | K:contact | main contact
  owner_id | text | historized | K:user | owner
  campaign_id | text | fixed | K:campaign | campaign that brought it
  source_lead_id | text | fixed | K:lead | lead that it came from
  product_id | text | historized | K:product | main product
  pipeline | text | historized | | process
  stage | text | historized | | stage name
  kind | text | fixed | | new business, renewal, expansion
  source | text | fixed | | channel
  amount | money | historized | | expected or sold value, in currency
  currency | text | fixed | | ISO 4217 code
  close_on | date | historized | | planned close date (actual once closed)
  next_step | text | historized | | what the owner plans next
  competitor | text | historized | | competitor named
  created_at | time | fixed | | creation in the CRM
  created_order | int | fixed | | order of creation where no date exists
  is_won | bool | outcome | O | true won, false lost, empty open
  closed_at | time | outcome | O | time of winning or losing
  lost_reason | text | outcome | O | why it was lost
activity: one call, e-mail, meeting, task or web visit
  kind | text | fixed | | call, email, meeting, task, note, web
  direction | text | fixed | | in, out or empty
  subject | text | historized | | subject line
  body | text | historized | | short text
  lead_id | text | historized | K:lead | lead that it is about
  contact_id | text | historized | K:contact | contact
  deal_id | text | historized | K:deal | deal
  account_id | text | historized | K:account | account
  user_id | text | historized | K:user | who did it
  created_at | time | fixed | | entry in the CRM
  happened_at | time | historized | | when it took place, or is planned
  is_done | bool | historized | | took place
  duration_minutes | float | historized | | length in minutes
product: something sold
  name | text | historized | | name
  family | text | historized | | product family
  list_price | money | historized | | list price, in currency
  currency | text | fixed | | ISO 4217 code
deal_product: one line item
  deal_id | text | fixed | K:deal | deal
  product_id | text | fixed | K:product | product
  quantity | float | historized | | number of units
  amount | money | historized | | value of the line, in currency
  currency | text | fixed | | ISO 4217 code
deal_contact: a contact's part in a deal
  deal_id | text | fixed | K:deal | deal
  contact_id | text | fixed | K:contact | contact
  role | text | historized | | decision maker, champion ...
membership: a lead or contact in a campaign
  campaign_id | text | fixed | K:campaign | campaign
  lead_id | text | fixed | K:lead | lead
  contact_id | text | fixed | K:contact | contact
  status | text | historized | | sent, opened, responded ...
  created_at | time | fixed | | when it was added
link: a relation that changes over time (activity or member to a record)
  entity | text | fixed | | entity of the linked record
  record_id | text | fixed | | the linked record
  other_entity | text | fixed | | entity of the other side
  other_id | text | fixed | | the other side
quota: a target for one user and period
  user_id | text | fixed | K:user | user
  starts_on | date | fixed | | first day of the period
  ends_on | date | fixed | | last day of the period
  amount | money | historized | | target, in currency
  currency | text | fixed | | ISO 4217 code
fx_rate: the worth of one unit of a currency in the organization's own on a day
  currency | text | fixed | | ISO 4217 code
  on_date | date | fixed | | day
  rate | float | historized | | units of the organization's currency for one unit
listing: a property on the market
  address | text | fixed | | street address
  suburb | text | fixed | | suburb
  postcode | text | fixed | | postcode
  kind | text | fixed | | house, unit, townhouse
  bedrooms | int | historized | | number of bedrooms
  bathrooms | int | historized | | number of bathrooms
  car_spaces | int | historized | | number of car spaces
  land_square_metres | float | historized | | land size in square metres
  price_low | money | historized | | lower end of the guide
  price_high | money | historized | | upper end of the guide
  currency | text | fixed | | ISO 4217 code
  status | text | historized | | available, under offer, sold ...
  owner_id | text | historized | K:user | agent
  created_at | time | fixed | | creation in the CRM
  sold_at | time | outcome | O | time of the sale
  sold_amount | money | outcome | O | price of the sale
requirement: what a buyer looks for
  contact_id | text | fixed | K:contact | buyer
  suburbs | text | historized | | suburbs, separated by ;
  kind | text | historized | | house, unit, townhouse
  bedrooms_min | int | historized | | at least so many bedrooms
  price_min | money | historized | | lower end of the budget
  price_max | money | historized | | upper end of the budget
  currency | text | fixed | | ISO 4217 code
  created_at | time | fixed | | creation in the CRM
"""


@dataclass(frozen=True)
class Field:
    """One column of an entity."""

    name: str
    kind: str
    known_at: str
    meaning: str
    references: str = ""
    personal: bool = False
    outcome: bool = False


@dataclass(frozen=True)
class Entity:
    """One table of the lake: one row a version of a record."""

    name: str
    meaning: str
    fields: dict[str, Field]


# Every entity has these beside its own; deleted_at and merged_into are set by the version that ends the record.
COMMON = (Field("deleted_at", "time", "historized", "time of deletion"),
          Field("merged_into", "text", "historized", "record that this one was merged into"))
VERSION = (("id", "text", "`<source>:<native id>`"), ("valid_from", "time", "when this version became true"),
           ("valid_to", "time", "when it ceased to be true; empty = current"),
           ("recorded_at", "time", "when the workbench learned of it"), ("origin", "text", "how: " + ", ".join(ORIGINS)))


def _parse() -> dict[str, Entity]:
    entities: dict[str, Entity] = {}
    for line in _TEXT.strip().splitlines():
        if not line.startswith(" "):
            name, meaning = line.split(": ", 1)
            entities[name] = Entity(name, meaning, {})
            continue
        column, kind, known_at, flags, meaning = (part.strip() for part in line.split("|"))
        reference = next((f[2:] for f in flags.split() if f.startswith("K:")), "")
        entities[name].fields[column] = Field(column, kind, known_at, meaning, reference, "P" in flags.split(),
                                              "O" in flags.split())
    for entity in entities.values():
        entity.fields.update({f.name: f for f in COMMON})
    return entities


ENTITIES = _parse()


def entity(name: str) -> Entity:
    """The entity called `name`.

    >>> entity("lead").fields["email"].personal
    True
    """
    if name not in ENTITIES:
        raise WorkbenchError(f"There is no entity {name!r}.", fix=f"Entities: {', '.join(ENTITIES)}.")
    return ENTITIES[name]


def dictionary() -> str:
    """The data dictionary as Markdown (data/dictionary.md), made from this module alone."""
    out = ["# Data dictionary", "", "Made by `workbench dictionary`; do not edit. Each table holds one row a version of a record.",
           "A field that a mapping or CRM adds is called `x_...` and described in table `field`.", "",
           "Every table begins with:", "", "| column | type | meaning |", "|---|---|---|"]
    out += [f"| {name} | {kind} | {meaning} |" for name, kind, meaning in VERSION]
    for item in ENTITIES.values():
        out += ["", f"## {item.name}", "", item.meaning[0].upper() + item.meaning[1:] + ".", "",
                "| column | type | known at | references | personal | meaning |", "|---|---|---|---|---|---|"]
        out += [f"| {f.name} | {f.kind} | {f.known_at} | {f.references} | {'yes' if f.personal else ''} | {f.meaning} |"
                for f in item.fields.values()]
    return "\n".join(out) + "\n"
