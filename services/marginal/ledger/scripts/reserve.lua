-- ARGV: now, "epoch id tenant small full lease hour day month key fingerprint" ("-" is none)
local epoch, id, tenant, small, full, seconds, hour, day, month, key, fingerprint = string.match(
  ARGV[2], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
small, full, seconds = tonumber(small), tonumber(full), tonumber(seconds)
local limits = { tonumber(hour), tonumber(day), tonumber(month) }

local function answer(...) return redis.status_reply(table.concat({ ... }, ' ')) end
local function granted(hold, short)
  return answer('granted', hold.scope, whole(hold.held), hold.admitted, short or 0)
end

if call('GET', TAG .. ':epoch') ~= epoch then return answer('emptied') end

local before = load_hold(id)
if before then
  if before.state ~= 'H' or before.tenant ~= tenant then return answer('answered', id) end
  lease(id, seconds)
  return granted(before)
end

if key ~= '-' then
  local first, hold, asked = owner(key)
  if first then
    if asked ~= '-' and asked ~= fingerprint then return answer('reused') end
    return answer(hold.state == 'H' and 'in_progress' or 'answered', first)
  end
end

local room, spans = {}, periods(NOW)
for place = 1, 3 do
  local limit = limits[place]
  if limit then
    local money = call('HMGET', money_key(tenant, spans[place]), 'c', 'h')
    room[place] = limit - (money[1] or 0) - (money[2] or 0)
  end
end

-- The window that lacks the longest.
local function lacking(nanos)
  for place = 3, 1, -1 do
    if room[place] and nanos > room[place] then return place end
  end
end

local scope, held, short = 'F', full, lacking(full)
if short then
  scope, held = 'S', small
  local place = lacking(small)
  if place then return answer('exceeded', place, format('%.6f', NOW)) end
end

local hold = {
  state = 'H', tenant = tenant, admitted = format('%.6f', NOW), held = held, scope = scope, mark = 0,
  charged = 0, answered = false, final = false,
}
save_hold(id, hold, OPEN)
lease(id, seconds)
if key ~= '-' then own(key, fingerprint, id, OPEN) end
add(tenant, NOW, spans, held, 0)
return granted(hold, short)
