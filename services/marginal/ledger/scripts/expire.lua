-- ARGV: now, most holds to expire, then the ids to expire whatever their lease; gives how many leases were over
local most = tonumber(ARGV[2])

local function expire(id)
  local hold = load_hold(id)
  if hold and hold.state == 'H' then
    hold.state, hold.charged = 'E', hold.mark > 0 and hold.mark or hold.held
    save_hold(id, hold, OPEN)
    local at = tonumber(hold.admitted)
    add(hold.tenant, at, periods(at), -hold.held, hold.charged)
    call('ZADD', TAG .. ':expired', format('%.6f', NOW), id)
    call('EXPIRE', TAG .. ':expired', OPEN)
  end
  call('ZREM', TAG .. ':leases', id)
end

for place = 3, #ARGV do expire(ARGV[place]) end
local over = call('ZRANGE', TAG .. ':leases', '-inf', format('%.6f', NOW), 'BYSCORE', 'LIMIT', 0, most)
for _, id in ipairs(over) do expire(id) end
call('ZREMRANGEBYSCORE', TAG .. ':expired', '-inf', format('%.6f', NOW - OPEN)) -- forgotten by now
return #over
