-- What every script begins with: the clock, the calendar, and how holds and money are kept.
--
-- KEYS[1] is the store's hash tag, so that all keys are in one slot. ARGV[1] is "" for the server's own clock, or the
-- moment to act at (tests); the others are words joined by spaces, which cost less on the way. Money is below 2^53, and therefore exact; it is written with %.0f, never by tostring.
--
--   TAG:hold:ID            one hold, fields joined by spaces: see `unpack_hold`
--   TAG:key:HASH           fingerprint and id of the request that has an idempotency key
--   TAG:money:TENANT:PERIOD  hash: c committed, h held
--   TAG:tenants:MONTH      set of the tenants with money in a month
--   TAG:leases             sorted set of the open holds, by the end of their lease
--   TAG:expired            sorted set of expired holds that nobody acknowledged, by when they expired
--   TAG:epoch              the name of what this store remembers; the only key without an expiry

local TAG = KEYS[1]
local HOUR, DAY = 3600, 86400
local LENGTHS = { HOUR, DAY, 31 * DAY }
local REMEMBERED = 48 * HOUR -- REMEMBERED_SECONDS of ledger/ports.py
local OPEN = 40 * DAY -- an open hold outlives every period it counts in
local call, floor, ceil, format, sub = redis.call, math.floor, math.ceil, string.format, string.sub

local NOW = tonumber(ARGV[1])
if not NOW then
  local time = call('TIME')
  NOW = time[1] + time[2] / 1e6
end

local function whole(number) return format('%.0f', number) end

-- The hour, the day and the month that a moment is in, as "2026-11-24T21", "2026-11-24" and "2026-11": the proleptic
-- Gregorian calendar, in eras of 400 years that begin in March.
local function periods(at)
  local days = floor(at / DAY)
  local shifted = days + 719468
  local era = floor(shifted / 146097)
  local doe = shifted - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local month, year = mp < 10 and mp + 3 or mp - 9, yoe + era * 400
  if month <= 2 then year = year + 1 end
  local hour = format(
    '%04d-%02d-%02dT%02d', year, month, doy - floor((153 * mp + 2) / 5) + 1, floor((at - days * DAY) / HOUR))
  return { hour, sub(hour, 1, 10), sub(hour, 1, 7) }
end

local function money_key(tenant, period) return TAG .. ':money:' .. tenant .. ':' .. period end

-- Adds to what is committed or held in the periods of a moment, those left out that are over for good.
local function add(tenant, at, spans, held, committed)
  for place = 1, 3 do
    local lives = at + LENGTHS[place] + REMEMBERED - NOW
    if lives > 0 then
      local key, new = money_key(tenant, spans[place]), false
      if held ~= 0 then new = call('HINCRBY', key, 'h', whole(held)) == held end
      if committed ~= 0 then new = call('HINCRBY', key, 'c', whole(committed)) == committed or new end
      if new then
        call('EXPIRE', key, ceil(lives))
        if place == 3 then
          local tenants = TAG .. ':tenants:' .. spans[3]
          call('SADD', tenants, tenant)
          call('EXPIRE', tenants, ceil(lives))
        end
      end
    end
  end
end

-- States: H held, E expired, S settled. Scopes: F full, S small.
local function unpack_hold(text)
  if not text then return nil end
  local state, tenant, admitted, held, scope, mark, charged, answered, final = string.match(
    text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return {
    state = state, tenant = tenant, admitted = admitted, held = tonumber(held), scope = scope, mark = tonumber(mark),
    charged = tonumber(charged), answered = answered == '1', final = final == '1',
  }
end

local function load_hold(id) return unpack_hold(call('GET', TAG .. ':hold:' .. id)) end

local function save_hold(id, hold, lives)
  local text = table.concat({
    hold.state, hold.tenant, hold.admitted, whole(hold.held), hold.scope, whole(hold.mark), whole(hold.charged),
    hold.answered and '1' or '0', hold.final and '1' or '0',
  }, ' ')
  call('SET', TAG .. ':hold:' .. id, text, 'EX', lives)
end

-- The request that an idempotency key belongs to, and what was asked under it; nil when the key is free.
local function owner(key)
  local text = call('GET', TAG .. ':key:' .. key)
  if not text then return nil end
  local fingerprint, id = string.match(text, '^(%S+) (.+)$')
  local hold = load_hold(id)
  if hold and (hold.state == 'H' or hold.answered) then return id, hold, fingerprint end
  return nil
end

local function own(key, fingerprint, id, lives) call('SET', TAG .. ':key:' .. key, fingerprint .. ' ' .. id, 'EX', lives) end

local function lease(id, seconds)
  call('ZADD', TAG .. ':leases', 'GT', format('%.6f', NOW + seconds), id)
  call('EXPIRE', TAG .. ':leases', OPEN)
end
