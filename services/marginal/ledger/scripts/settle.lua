-- ARGV: now, then of each: "id tenant nanos admitted answered final key"
for place = 2, #ARGV do
  local id, tenant, nanos, admitted, answered, final, key = string.match(
    ARGV[place], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  nanos = tonumber(nanos)
  local hold = load_hold(id)
  if not hold then
    hold = {
      state = 'S', tenant = tenant, admitted = admitted, held = 0, scope = 'F', mark = 0, charged = 0,
    }
  end
  if not hold.final then
    local at = tonumber(hold.admitted)
    add(hold.tenant, at, periods(at), hold.state == 'H' and -hold.held or 0, nanos - hold.charged)
    if hold.state == 'H' then call('ZREM', TAG .. ':leases', id) end
    if hold.state == 'E' then call('ZREM', TAG .. ':expired', id) end
    hold.state, hold.charged = 'S', nanos
    hold.answered, hold.final = answered == '1', final == '1'
    save_hold(id, hold, REMEMBERED)
    if key ~= '-' and hold.answered then
      if owner(key) then call('EXPIRE', TAG .. ':key:' .. key, REMEMBERED) else own(key, '-', id, REMEMBERED) end
    end
  end
end
