-- ARGV: now, first rank, last rank; of each that nobody acknowledged: id, tenant, charged, admitted
local found = {}
for _, id in ipairs(call('ZRANGE', TAG .. ':expired', ARGV[2], ARGV[3])) do
  local hold = load_hold(id)
  if hold and hold.state == 'E' then found[#found + 1] = { id, hold.tenant, whole(hold.charged), hold.admitted } end
end
return found
