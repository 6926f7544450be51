-- A part of an index, from one member to another, up to a number of members or of bytes, with the rows on request. The
-- prefix before the key in each member is left out. Before them: 1 if there may be more or else 0 (alone: 2 if the
-- table is not whole, 3 if none of these parts exists). Rows are read one at a time, since only reading a row shows its
-- length.
local index, rows, about = unpack(KEYS)
local from, to, limit, room, prefix, with_rows = unpack(ARGV)
local call, sub = redis.call, string.sub
local exists = call('HEXISTS', about, 'exists')
local is_indexed = call('ZSCORE', index, '\255') and 1 or 0
if exists ~= is_indexed or exists ~= call('HEXISTS', rows, '\255') then
    return {2}
elseif exists == 0 then
    return {3}
end
limit, room, prefix, with_rows = tonumber(limit), tonumber(room), tonumber(prefix) + 1, with_rows == '1'
local few = 1000
local page, last = {1}, 1
while limit > 0 do
    local members = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, limit < few and limit or few)
    for at = 1, #members do
        local key = members[at]
        from = key
        if prefix > 1 then
            key = sub(key, prefix)
        end
        last = last + 1
        page[last] = key
        room = room - #key
        if with_rows then
            local row = call('HGET', rows, key)
            last = last + 1
            page[last] = row
            room = room - #(row or '')
        end
        if room <= 0 then
            return page
        end
    end
    if #members < few then
        page[1] = #members < limit and 0 or 1
        return page
    end
    from = '(' .. from
    limit = limit - few
end
return page
